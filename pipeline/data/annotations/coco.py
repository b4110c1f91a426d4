"""Annotated images as labeled regions, how regions are painted, and the reader of COCO JSON."""

from __future__ import annotations

import codecs
import contextlib
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.data.datasets.coco_index import CocoImage, compressed_region, json_elements
from pipeline.data.images import MAX_PIXELS
from pipeline.data.label_spaces import Color
from pipeline.errors import ConfigError

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "Region",
    "checked_name",
    "checked_path",
    "checked_size",
    "entry_errors",
    "make_region",
    "need",
    "paint_regions",
    "read_coco",
    "split_json",
]

_CHUNK = 8 * 2**20  # bytes of JSON that are decoded at once
_LONGEST_NAME = 100  # characters, as in classes files
_LONGEST_PART = 250  # bytes; file systems allow 255 for the name of a file or folder
_LONGEST_PATH = 900  # characters; S3 allows 1,024 bytes for a key
_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class Region:
    """Pixels of one object: its label, COCO's compressed run lengths, and the number of pixels, at least 1."""

    label: str
    counts: bytes
    area: int


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with at least one object.

    Attributes:
        place: Source file and entry, for messages.
        name: Path of the label below the folder of labels, without extension.
        key: Text that is looked up in the folder of images.
        match: Part of an image's path that equals `key`: the whole, the whole without extension, or the file name.
        paint: Returns (H, W) uint8, given an index for each label and the index of pixels that no object covers;
            raises ConfigError for annotations that cannot be painted.
        uri: URI of the image if the source states it.
    """

    place: str
    name: str
    key: str
    match: Literal["path", "stem", "name"]
    paint: Callable[[Mapping[str, int], int], NDArray[np.uint8]]
    uri: str | None = None


@dataclass(frozen=True)
class Annotations:
    """Content of a source.

    Attributes:
        labels: Color of each label, or None, in the order of their values.
        used: Labels that may be painted.
        images: Images that are painted.
        left_out: Number of images that are not painted, by reason.
        skipped: Number of objects that are not painted, by reason.
    """

    labels: Mapping[str, Color | None]
    used: frozenset[str]
    images: Sequence[AnnotatedImage]
    left_out: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def read_coco(data: bytes, place: str) -> Annotations:
    """Read a COCO JSON with any categories.

    Crowd regions are painted like all others: CVAT uses the flag to choose run lengths instead of polygons.

    Args:
        data: Content of the file.
        place: Its URI, for messages.

    Raises:
        ConfigError: If the file is not COCO JSON, or an entry is malformed; the message names both.
    """
    images, categories, colors = _images_and_categories(data, place)
    regions: dict[int | str, list[Region]] = {key: [] for key in images}
    skipped: Counter[str] = Counter()
    for key, entry in split_json(data, place):
        if key == "annotations":
            with entry_errors(f"{place}, annotation {_entry_id(entry)}"):
                image_id = need(entry, "image_id", int, str)
                category = need(entry, "category_id", int)
                if image_id not in images or category not in categories:
                    raise ValueError(f"image_id {image_id!r} or category_id {category} is not listed in the file")
                image = images[image_id]
                region = make_region(categories[category], entry.get("segmentation"), image.height, image.width)
            if region is None:
                skipped["without an area, such as boxes"] += 1
            else:
                regions[image_id].append(region)
    used = frozenset(region.label for of_image in regions.values() for region in of_image)
    annotated = []
    for number, each in images.items():
        if regions[number]:
            path = each.file_name
            paint = partial(paint_regions, each.height, each.width, regions[number])
            stem = posixpath.splitext(path)[0]
            annotated.append(AnnotatedImage(f"{place}, image {path}", stem, path, "path", paint))
    return Annotations(colors, used, annotated, Counter({"no object": len(images) - len(annotated)}), skipped)


def make_region(label: str, segmentation: Any, height: int, width: int) -> Region | None:
    """Return COCO polygons or run lengths as a region, None for what has no area; `entry_errors` takes its errors."""
    if not isinstance(segmentation, list):
        counts = need(segmentation, "counts", list, str)
        # The sum of fractions may be right, but they are cut off later.
        if isinstance(counts, list) and any(type(count) is not int for count in counts):
            raise ValueError("run lengths are not whole numbers")
    mask = compressed_region(segmentation, height, width)
    area = 0 if mask is None else int(coco_mask.area(mask))
    return Region(label, mask["counts"], area) if mask is not None and area else None


def paint_regions(
    height: int, width: int, regions: Sequence[Region], index: Mapping[str, int], uncovered: int
) -> NDArray[np.uint8]:
    """Return (height, width) indices, painted from the largest region to the smallest, equal ones in their order."""
    # Column by column, as the masks are.
    canvas = np.full((height, width), uncovered, np.uint8, order="F")
    for region in sorted(regions, key=lambda each: -each.area):
        mask = coco_mask.decode({"size": [height, width], "counts": region.counts})
        np.copyto(canvas, np.uint8(index[region.label]), where=mask.view(np.bool_))
    return np.ascontiguousarray(canvas)


def split_json(data: bytes, place: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for each element of the arrays in a JSON object, and (key, value) for other values.

    Raises:
        ConfigError: If the text is not JSON; the message names `place`.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    starts = range(0, len(data), _CHUNK)
    pieces = (decoder.decode(data[start : start + _CHUNK], final=start + _CHUNK >= len(data)) for start in starts)
    try:
        yield from json_elements(pieces)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not valid JSON: {error}; export it again") from error


@contextlib.contextmanager
def entry_errors(place: str) -> Iterator[None]:
    """Turn the exceptions that malformed entries raise into a ConfigError that names `place`."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{place}: {error}; correct it, or export the file again") from error


def need(entry: Any, key: str, *kinds: type) -> Any:
    """Return `entry[key]`, of one of the types `kinds`; raise ValueError otherwise. Booleans are no numbers."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{key} is {_shown(value)}, must be of type {' or '.join(each.__name__ for each in kinds)}")
    return value


def checked_size(entry: Any, height_key: str, width_key: str) -> tuple[int, int]:
    """Return height and width in pixels; raise ValueError unless they are whole numbers of a readable size."""
    height, width = (need(entry, key, int, float) for key in (height_key, width_key))
    # The limits come first: infinity has no remainder.
    if not (1 <= height <= MAX_PIXELS and 1 <= width <= MAX_PIXELS / height) or height % 1 or width % 1:
        raise ValueError(f"{height_key} {_shown(height)} and {width_key} {_shown(width)} are no size in pixels")
    return int(height), int(width)


def checked_name(value: str) -> str:
    """Return the name of a class without outer blanks; raise ValueError if a classes file could not hold it."""
    name = value.strip()
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"the class name {_shown(value)} is not 1 to {_LONGEST_NAME} printable characters")
    return name


def checked_path(value: str) -> str:
    """Return a relative path without `.` parts; raise ValueError if it leads out of its folder or is no path."""
    parts = [part for part in value.split("/") if part != "."]
    unsafe = not parts or any(
        part in ("", "..") or len(part.encode(errors="replace")) > _LONGEST_PART for part in parts
    )
    if unsafe or len(value) > _LONGEST_PATH or "\\" in value or not value.isprintable() or re.match("[A-Za-z]:", value):
        raise ValueError(f"the file name {_shown(value)} is not a relative path without '..' and backslashes")
    return "/".join(parts)


def _images_and_categories(
    data: bytes, place: str
) -> tuple[dict[int | str, CocoImage], dict[int | str, str], dict[str, Color | None]]:
    """Return images by id; names by category id; and colors by name, in the order of the category ids."""
    images: dict[int | str, CocoImage] = {}
    categories: dict[int | str, tuple[str, Color | None]] = {}
    for key, entry in split_json(data, place):
        if key not in ("images", "categories"):
            continue
        with entry_errors(f"{place}, entry {_entry_id(entry)} of {key}"):
            number = need(entry, "id", int, str) if key == "images" else need(entry, "id", int)
            if number in (images if key == "images" else categories):
                raise ValueError("its id occurs twice")
            if key == "images":
                images[number] = CocoImage(
                    checked_path(need(entry, "file_name", str)), *checked_size(entry, "height", "width")
                )
            else:
                categories[number] = checked_name(need(entry, "name", str)), _color(entry.get("color"))
    if not images or not categories:
        missing = "categories" if images else "images"
        raise ConfigError(f"{place} lists no {missing}: COCO JSON has images, annotations and categories; export it so")
    colors: dict[str, Color | None] = {}
    for _, (name, color) in sorted(categories.items()):
        colors.setdefault(name, color)
    return images, {number: name for number, (name, _) in categories.items()}, colors


def _color(value: Any) -> Color | None:
    """Return a category's color, None unless it is three numbers."""
    if isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each <= 255 for each in value):
        return value[0], value[1], value[2]
    return None


def _entry_id(entry: Any) -> str:
    return _shown(entry.get("id") if isinstance(entry, dict) else entry)


def _shown(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
