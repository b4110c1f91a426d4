"""Exports of CVAT: folders and .zip files, and the reader of color masks in the format Segmentation mask 1.1."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations.coco import (
    AnnotatedImage,
    Annotations,
    checked_name,
    checked_path,
    entry_errors,
    read_coco,
)
from pipeline.data.class_files import BACKGROUND
from pipeline.data.filesystems import normalise
from pipeline.data.images import MAX_PIXELS, normalize_decode_error, open_image
from pipeline.data.label_spaces import Color
from pipeline.data.storage import Storage
from pipeline.data.tiff import apply_orientation
from pipeline.errors import ConfigError, DecodeError

__all__ = ["LARGEST_FILE", "LOOKED_FOR", "ExportFiles", "folder_files", "read_export", "zip_files"]

LARGEST_FILE = 2 * 2**30  # bytes of one file, and of a .zip
_LARGEST_SUM = 8 * 2**30  # bytes of all members of a .zip
LOOKED_FOR = (
    "a COCO JSON (images, annotations, categories), Label Studio's JSON export (a list of tasks), or a folder or .zip "
    "with annotations/instances_*.json or with labelmap.txt and SegmentationClass/*.png"
)
_LABELMAP = "labelmap.txt"
_MASKS = "SegmentationClass/"
_MODES = ("P", "L", "RGB", "RGBA")


@dataclass(frozen=True)
class ExportFiles:
    """Files of an export, whether in a folder or in a .zip.

    Attributes:
        place: URI of the folder or .zip.
        sizes: Bytes of each file, by relative path.
        read_file: Returns the content of a relative path.
    """

    place: str
    sizes: Mapping[str, int]
    read_file: Callable[[str], bytes]

    def find(self, pattern: str) -> list[str]:
        """Return the relative paths that a regular expression matches as a whole, at any depth."""
        whole = re.compile(f"(.*/)?{pattern}")
        return sorted(name for name in self.sizes if whole.fullmatch(name) and not name.startswith("__MACOSX/"))

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            ConfigError: If it is too large, or damaged in a .zip.
        """
        if self.sizes[name] > LARGEST_FILE:
            raise ConfigError(f"{self.place}/{name} has {self.sizes[name]:,} bytes, the limit is {LARGEST_FILE:,}")
        return self.read_file(name)


def folder_files(storage: Storage, uri: str) -> ExportFiles:
    """List a folder; one that does not exist has no files."""
    root = normalise(uri).rstrip("/")
    sizes = {info.uri.removeprefix(f"{root}/"): info.size for info in storage.list(root)}
    return ExportFiles(root, sizes, lambda name: storage.read(f"{root}/{name}"))


def zip_files(data: bytes, place: str) -> ExportFiles:
    """List the members of a .zip.

    Raises:
        ConfigError: If it is damaged, a name in it leads out of a folder, or it holds too much.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [member for member in archive.infolist() if not member.is_dir()]
    # The module raises whatever Python has on damaged directories: no list of kinds is ever complete.
    except Exception as error:
        raise ConfigError(f"{place} is a damaged .zip: {error}; export it again") from error
    for member in members:
        with entry_errors(place):
            checked_path(member.filename)
    total = sum(member.file_size for member in members)
    if total > _LARGEST_SUM:
        raise ConfigError(f"{place} unpacks to {total:,} bytes, the limit is {_LARGEST_SUM:,}: unpack it into a folder")

    def read_member(name: str) -> bytes:
        try:
            return archive.read(name)
        except Exception as error:
            raise ConfigError(f"{place}/{name} is damaged or encrypted: {error}; export it again") from error

    return ExportFiles(place, {member.filename: member.file_size for member in members}, read_member)


def read_export(files: ExportFiles) -> Annotations:
    """Read an export in the format COCO or Segmentation mask 1.1.

    Raises:
        ConfigError: If there is none, or more than one; or if it is malformed.
    """
    instances = files.find(r"annotations/instances_[^/]*\.json")
    labelmaps = files.find(re.escape(_LABELMAP))
    if len(labelmaps) + bool(instances) != 1:
        other = f"{len(files.sizes)} other files" if files.sizes else "nothing"
        found = ", ".join([*instances[:3], *labelmaps[:3]]) or other
        raise ConfigError(f"{files.place} holds {found}, must be one export: give {LOOKED_FOR}")
    if labelmaps:
        return _read_masks(files, labelmaps[0])
    # A project of several subsets is exported as one file for each.
    parts = [read_coco(files.read(name), f"{files.place}/{name}") for name in instances]
    return Annotations(
        labels={name: color for part in parts for name, color in part.labels.items()},
        used=frozenset(name for part in parts for name in part.used),
        images=[image for part in parts for image in part.images],
        left_out=sum((part.left_out for part in parts), Counter()),
        skipped=sum((part.skipped for part in parts), Counter()),
    )


def _read_masks(files: ExportFiles, labelmap: str) -> Annotations:
    """Read color masks and their label map; the tool writes the color of `background` where there is no object."""
    colors = _read_labelmap(files.read(labelmap), f"{files.place}/{labelmap}")
    folder = f"{labelmap.removesuffix(_LABELMAP)}{_MASKS}"
    masks = [name for name in sorted(files.sizes) if name.startswith(folder) and name.lower().endswith(".png")]
    if not masks:
        raise ConfigError(f"{files.place} has {labelmap} but no {folder}*.png: export Segmentation mask 1.1 again")
    images = []
    for mask in masks:
        place = f"{files.place}/{mask}"
        with entry_errors(place):
            name = checked_path(mask.removeprefix(folder)[: -len(".png")])
        images.append(AnnotatedImage(place, name, name, "stem", partial(_paint, files, mask, colors)))
    return Annotations(colors, frozenset(colors) - {BACKGROUND}, images)


def _read_labelmap(data: bytes, place: str) -> dict[str, Color | None]:
    """Return the color of each label of `label:color_rgb:parts:actions` lines."""
    colors: dict[str, Color | None] = {}
    with entry_errors(place):
        lines = data.decode("utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        with entry_errors(f"{place}, line {number}"):
            cells = line.split(":")
            if len(cells) != 4:
                raise ValueError(f"{line[:200]!r} has {len(cells)} fields, must be label:red,green,blue:parts:actions")
            name = checked_name(cells[0])
            channels = [int(channel) if channel.strip().isdecimal() else 256 for channel in cells[1].split(",")]
            if len(channels) != 3 or max(channels) > 255:
                raise ValueError(f"the color {cells[1][:200]!r} is not red,green,blue from 0 to 255")
            color = (channels[0], channels[1], channels[2])
            if name in colors or color in colors.values():
                raise ValueError(f"the label {name!r} or the color {color} occurs twice, so that masks are ambiguous")
            colors[name] = color
    if not colors:
        raise ConfigError(f"{place} lists no label: it needs lines label:red,green,blue:parts:actions; export it again")
    return colors


def _paint(
    files: ExportFiles, name: str, colors: Mapping[str, Color | None], index: Mapping[str, int], uncovered: int
) -> NDArray[np.uint8]:
    packed = _read_colors(files.read(name), f"{files.place}/{name}")
    labels = {int(_packed(np.array(color))): label for label, color in colors.items()}
    known = np.array(sorted(labels), np.uint32)
    # (H, W) colors -> (H, W) positions in `known`
    found = np.searchsorted(known, packed).clip(max=len(known) - 1)
    unknown = packed[known[found] != packed]
    if unknown.size:
        values, counts = np.unique(unknown, return_counts=True)
        most = int(values[counts.argmax()])
        raise ConfigError(
            f"{files.place}/{name} has the color {most >> 16},{most >> 8 & 255},{most & 255} at {counts.max():,} pixels"
            f" and {unknown.size - counts.max():,} pixels of other colors that {_LABELMAP} lacks: add them to it, or "
            "export labels and masks together"
        )
    ordered = [labels[color] for color in sorted(labels)]
    indices = [uncovered if label == BACKGROUND else index[label] for label in ordered]
    return np.array(indices, np.uint8)[found]


def _read_colors(data: bytes, place: str) -> NDArray[np.uint32]:
    """Return (H, W) 0xRRGGBB of a mask; palettes are resolved and alpha is dropped."""
    try:
        with normalize_decode_error():
            image, orientation = open_image(data, ("PNG",), MAX_PIXELS)
            if image.mode not in _MODES:
                raise DecodeError(f"its pixels are of mode {image.mode}, must be colors or a palette of 8 bits")
            return _packed(apply_orientation(np.asarray(image.convert("RGB")), orientation))
    except DecodeError as error:
        raise ConfigError(f"{place} is no mask: {error}; export it again") from error


def _packed(colors: NDArray[np.generic]) -> NDArray[np.uint32]:
    """(…, 3) -> (…), 0xRRGGBB."""
    wide = colors.astype(np.uint32)
    return (wide[..., 0] << np.uint32(16)) | (wide[..., 1] << np.uint32(8)) | wide[..., 2]
