"""Reading label files and writing masks, by value and never by colour conversion."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.exif import turned
from pipeline.data.images import MAX_PIXELS, one_reason, open_image
from pipeline.data.label_spaces import LabelSpace
from pipeline.errors import DecodeError, UnknownClasses

__all__ = ["decode_label", "decode_mask", "encode_confidence", "encode_mask"]

# Lossy formats cannot hold labels.
_LABEL_FORMATS = ("PNG", "TIFF", "BMP")
# zlib's Z_RLE: masks are runs, and run lengths alone compress them as well as level 6 in less time.
_RUN_LENGTHS = 3


def decode_label(
    data: bytes, classes: int, ignore_label: int = 255, space: LabelSpace | None = None, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Reads class ids from a label file.

    Palette files give their indices (`convert("L")` would give the palette's brightness: 38 instead of 1 in VOC),
    grey files their values; colour files need a label space, whose palette translates them.

    Args:
        data: the whole file.
        classes: how many class ids there are.
        ignore_label: the id that ignored pixels get.
        space: how the file encodes classes; None: values are class ids.
        max_pixels: refuse larger files.

    Returns:
        (H, W) uint8 of ids below `classes`, or `ignore_label`.

    Raises:
        DecodeError: for damage, or another kind of file.
        UnknownClasses: for values that mean nothing.
    """
    with one_reason():
        image, orientation = open_image(data, _LABEL_FORMATS, max_pixels)
        values = turned(_as_written(image, data), orientation)
    if image.mode in ("P", "L"):
        return _check(_by_value(ignore_label, space)[values], classes, ignore_label)
    if image.mode in ("RGB", "RGBA") and space is not None:
        return _check(_by_colour(values[:, :, :3], space, ignore_label), classes, ignore_label)
    raise UnknownClasses(f"labels of mode {image.mode} cannot be read: give index files, or --label-space for colours")


def encode_mask(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """(H, W) class ids → palette PNG whose values are the ids; equal masks give equal bytes."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette([channel for colour in palette for channel in colour])
    return _png(image)


def encode_confidence(confidence: NDArray[np.uint8]) -> bytes:
    """(H, W) uint8 → grey PNG."""
    return _png(Image.fromarray(confidence))


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """The ids (or the confidences) in a file that `encode_mask` or `encode_confidence` wrote, (H, W) uint8.

    Raises:
        DecodeError: if it is no such file.
    """
    with one_reason():
        image, _ = open_image(data, ("PNG",), MAX_PIXELS)
    if image.mode not in ("P", "L"):
        raise DecodeError(f"a mask is a palette or grey PNG, this one is {image.mode}")
    return np.array(image)


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_type=_RUN_LENGTHS)
    return sink.getvalue()


def _as_written(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Pillow spreads grey of fewer than eight bits over 0–255, and inverts that of TIFFs in which 0 is white."""
    values = np.asarray(image)
    if image.mode != "L" or image.format == "BMP":
        return values
    if image.format == "PNG":
        bits, inverted = data[24], False
    else:
        tags = getattr(image, "tag_v2", {})
        bits, inverted = tags.get(258, (8,))[0], tags.get(262) == 0
    values = 255 - values if inverted else values
    return values // np.uint8(255 // (2**bits - 1)) if bits < 8 else values


def _by_value(ignore_label: int, space: LabelSpace | None) -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    if space is not None:
        table[space.ignore_label] = ignore_label
        for value, class_id in space.id_map.items():
            table[value] = ignore_label if class_id == space.ignore_label else class_id
    return table


def _by_colour(colours: NDArray[np.uint8], space: LabelSpace, ignore_label: int) -> NDArray[np.uint8]:
    """Colours of the palette become ids, every other colour is void, as published colour labels have it."""
    packed = np.zeros(colours.shape[:2], np.uint32)
    for channel in range(3):
        packed <<= 8
        packed |= colours[:, :, channel]
    ids = np.full(packed.shape, ignore_label, np.uint8)
    for class_id, (red, green, blue) in enumerate(space.palette):
        ids[packed == red * 65536 + green * 256 + blue] = class_id
    return ids


def _check(ids: NDArray[np.uint8], classes: int, ignore_label: int) -> NDArray[np.uint8]:
    wrong = (ids >= classes) & (ids != ignore_label)
    if wrong.any():
        raise UnknownClasses(
            f"label values {np.unique(ids[wrong])[:5].tolist()} are neither one of {classes} classes nor the "
            f"ignore label {ignore_label}: choose the --label-space that the files are written in"
        )
    return ids
