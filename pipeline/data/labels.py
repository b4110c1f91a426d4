"""Reading of label files and writing of masks, by value and never by color conversion."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.images import LARGEST_MAX_PIXELS, MAX_PIXELS, normalize_decode_error, open_image
from pipeline.data.label_spaces import LabelEncoding, LabelSpace
from pipeline.data.tiff import apply_orientation
from pipeline.errors import DecodeError, UnknownClasses

__all__ = ["decode_label", "decode_mask", "encode_confidence", "encode_mask", "encode_values", "label_values"]

# Lossy formats cannot hold labels.
_LABEL_FORMATS = ("PNG", "TIFF", "BMP")
# Marker for "no class", outside the range of 8-bit class ids.
_UNKNOWN = 256
_MOST_NAMED = 3
# zlib's Z_RLE: masks consist of runs, which this strategy compresses as well as level 6, in less time.
_RUN_LENGTHS = 3


def decode_label(
    data: bytes,
    classes: int,
    ignore_label: int = 255,
    space: LabelSpace | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    name: str = "the label",
) -> NDArray[np.uint8]:
    """Return the class ids in a label file.

    Palette files give their indices (`convert("L")` would give the palette's brightness: 38 instead of 1 in VOC). Gray
    files of 1 to 16 bits give their values, and gray files with alpha their gray values. Color files need a label
    space, whose palette translates them. In user-defined label spaces, color files with three equal channels are read
    by value.

    Args:
        data: Bytes of the whole file.
        classes: Number of class ids.
        ignore_label: Id that ignored pixels get.
        space: Encoding of classes in the file; None if the values are class ids.
        max_pixels: Largest number of pixels, width × height; a larger file is refused.
        name: Name of the file, for messages about its classes.

    Returns:
        (H, W) uint8 of ids below `classes`, or `ignore_label`.

    Raises:
        DecodeError: If the file is damaged or of another kind.
        UnknownClasses: If values or colors belong to no class.
    """
    values, mode = _open_label(data, max_pixels)
    try:
        if space is not None and space.encoding is not None:
            return _by_encoding(values, space, space.encoding, ignore_label)
        if values.ndim == 2:
            return _check(_by_value(values, ignore_label, space), classes, ignore_label)
        if space is not None:
            return _check(_by_colour(values, space, ignore_label), classes, ignore_label)
    except UnknownClasses as error:
        raise UnknownClasses(f"{name} {error}") from None
    raise UnknownClasses(f"labels of mode {mode} cannot be read: give index files, or --label-space for colors")


def label_values(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Return the content of a label file without regard to its meaning.

    Args:
        data: Bytes of the whole file.
        max_pixels: Largest number of pixels, width × height.

    Returns:
        (H, W) uint8 or uint16 values, or (H, W, 3) uint8 colors. Colors with three equal channels everywhere are
        values.

    Raises:
        DecodeError: If the file is damaged or of another kind.
    """
    values, _ = _open_label(data, max_pixels)
    return values[:, :, 0] if values.ndim == 3 and (values == values[:, :, :1]).all() else values


def _open_label(data: bytes, max_pixels: int) -> tuple[NDArray[Any], str]:
    """Return the stored values of a label file, with EXIF orientation applied, and Pillow's name of the mode."""
    with normalize_decode_error():
        image, orientation = open_image(data, _LABEL_FORMATS, max_pixels)
        return apply_orientation(_as_written(image, data), orientation), image.mode


def encode_mask(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode class ids (H, W) as a palette PNG whose values are the ids.

    Equal masks give equal bytes.
    """
    image = Image.fromarray(labels, mode="P")
    image.putpalette([channel for colour in palette for channel in colour])
    return _png(image)


def encode_values(labels: NDArray[np.uint8], values: Sequence[int]) -> bytes:
    """Return a gray PNG in which a label file value replaces each class id.

    Args:
        labels: Class ids, (H, W).
        values: Value (0–65535) of each class, by class id; a value above 255 makes a 16-bit file.
    """
    table = np.array(values, np.uint8 if max(values) < 256 else np.uint16)
    return _png(Image.fromarray(table[labels]))


def encode_confidence(confidence: NDArray[np.uint8]) -> bytes:
    """Encode confidences, (H, W) uint8, as a gray PNG."""
    return _png(Image.fromarray(confidence))


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """Return the ids or confidences, (H, W) uint8, in a file of `encode_mask` or `encode_confidence`.

    Masks of all images that `--max-pixels` can accept are read.

    Raises:
        DecodeError: If it is not such a file.
    """
    with normalize_decode_error():
        image, _ = open_image(data, ("PNG",), LARGEST_MAX_PIXELS)
    if image.mode not in ("P", "L"):
        raise DecodeError(f"a mask is a palette or grey PNG, this one is {image.mode}")
    return np.array(image)


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_type=_RUN_LENGTHS)
    return sink.getvalue()


def _as_written(image: Image.Image, data: bytes) -> NDArray[Any]:
    """Return the stored values: (H, W) uint8 or uint16, or (H, W, 3) uint8 for colors.

    Pillow scales gray of fewer than eight bits to 0–255 and inverts TIFFs in which 0 is white; both are reverted here.

    Raises:
        UnknownClasses: If Pillow does not keep the values of such a file.
    """
    bits, inverted = _bits(image, data)
    values = np.asarray(image)
    if image.mode == "P":
        return values
    if image.mode == "1":
        return (~values if inverted else values).astype(np.uint8)
    if image.mode == "L":
        values = 255 - values if inverted else values
        return values // np.uint8(255 // (2**bits - 1)) if bits < 8 else values
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    if image.mode in ("LA", "RGB", "RGBA") and bits <= 8:
        return values[:, :, 0] if image.mode == "LA" else values[:, :, :3]
    raise UnknownClasses(
        f"labels of mode {image.mode} with {bits} bits a channel cannot be read: give 8-bit index PNGs"
    )


def _bits(image: Image.Image, data: bytes) -> tuple[int, bool]:
    """Return the bits per channel, and whether 0 is white."""
    if image.format == "PNG":
        # Byte 24 of a PNG is the bit depth in its header.
        return data[24], False
    if image.format == "BMP":
        return 8, False
    tags = getattr(image, "tag_v2", {})
    # Tags BitsPerSample and PhotometricInterpretation.
    return tags.get(258, (8,))[0], tags.get(262) == 0


def _by_value(values: NDArray[Any], ignore_label: int, space: LabelSpace | None) -> NDArray[np.uint8]:
    """Translate values into class ids by the label space's `id_map`."""
    if values.max(initial=0) > 255:
        raise _unknown_values(values, values > 255)
    table = np.arange(256, dtype=np.uint8)
    if space is not None:
        table[space.ignore_label] = ignore_label
        for value, class_id in space.id_map.items():
            table[value] = ignore_label if class_id == space.ignore_label else class_id
    return table[values]


def _by_encoding(
    values: NDArray[Any], space: LabelSpace, encoding: LabelEncoding, ignore_label: int
) -> NDArray[np.uint8]:
    """Translate values (H, W) or colors (H, W, 3) into class ids by a strict encoding."""
    if values.ndim == 2:
        ids = _ids_of_values(values, encoding, ignore_label)
        if (ids == _UNKNOWN).any():
            raise _unknown_values(values, ids == _UNKNOWN)
        return ids.astype(np.uint8)
    if (values == values[:, :, :1]).all():
        return _by_gray(values, encoding, ignore_label)
    # Without listed colors, each class has its color in the palette.
    colors = encoding if any(encoding.colors) else LabelEncoding((), (), tuple((color,) for color in space.palette))
    by_color = _ids_of_colors(values, colors, ignore_label)
    if (by_color == _UNKNOWN).any():
        raise _unknown_colors(values, by_color == _UNKNOWN)
    return by_color.astype(np.uint8)


def _by_gray(values: NDArray[np.uint8], encoding: LabelEncoding, ignore_label: int) -> NDArray[np.uint8]:
    """Return the class ids of a color file in which all three channels are equal.

    Gray may be a listed color, or a value in three channels.
    """
    by_color = _ids_of_colors(values, encoding, ignore_label)
    by_value = _ids_of_values(values[:, :, 0], encoding, ignore_label)
    # Color files are known to hold colors only if every class has a listed color; otherwise values come first.
    for ids in (by_color, by_value) if encoding.has_all_colors() else (by_value, by_color):
        if not (ids == _UNKNOWN).any():
            return ids.astype(np.uint8)
    raise _unknown_values(values[:, :, 0], by_value == _UNKNOWN)


def _ids_of_values(values: NDArray[Any], encoding: LabelEncoding, ignore_label: int) -> NDArray[np.uint16]:
    """Translate (H, W) values into (H, W) class ids, `ignore_label` or `_UNKNOWN`."""
    return _value_table(encoding, ignore_label)[values]


@lru_cache(maxsize=8)
def _value_table(encoding: LabelEncoding, ignore_label: int) -> NDArray[np.uint16]:
    """Return the class id of each of the 65,536 values."""
    table = np.full(2**16, _UNKNOWN, np.uint16)
    for class_id, own in enumerate(encoding.values):
        table[list(own)] = class_id
    table[list(encoding.ignored)] = ignore_label
    return table


def _ids_of_colors(colors: NDArray[np.uint8], encoding: LabelEncoding, ignore_label: int) -> NDArray[np.uint16]:
    """Translate (H, W, 3) colors into (H, W) class ids, `ignore_label` or `_UNKNOWN`."""
    meanings = [(color, class_id) for class_id, own in enumerate(encoding.colors) for color in own]
    meanings += [(color, ignore_label) for color in encoding.ignored_colors]
    packed = _packed(colors)
    ids = np.full(packed.shape, _UNKNOWN, np.uint16)
    if meanings:
        # Binary search of each pixel's packed color among the sorted known colors.
        known = np.array([(color[0] << 16) + (color[1] << 8) + color[2] for color, _ in meanings], np.uint32)
        order = np.argsort(known)
        place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
        found = np.array([meaning for _, meaning in meanings], np.uint16)[order][place]
        np.copyto(ids, found, where=known[order][place] == packed)
    return ids


def _unknown_values(values: NDArray[Any], unknown: NDArray[np.bool_]) -> UnknownClasses:
    """Return the error that names the most frequent values of no class."""
    found = _counted(values[unknown], unknown.size)
    return UnknownClasses(
        f"has values of no class: {found}; list them in the classes file, or choose the --label-space of the files"
    )


def _unknown_colors(colors: NDArray[np.uint8], unknown: NDArray[np.bool_]) -> UnknownClasses:
    """Return the error that names the most frequent colors of no class."""
    packed = _packed(colors)
    found = _counted(packed[unknown], unknown.size, lambda value: str((value >> 16, value >> 8 & 255, value & 255)))
    return UnknownClasses(
        f"has colors of no class: {found}; color masks need exactly these as red, green, blue in the classes file, or "
        "the --label-space of the files"
    )


def _counted(values: NDArray[Any], pixels: int, shown: Callable[[int], str] = "[{}]".format) -> str:
    """Describe the most frequent values, such as `[7] (1,200 of 307,200 pixels)`."""
    found, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MOST_NAMED].tolist()
    text = ", ".join(f"{shown(int(found[at]))} ({counts[at]:,} of {pixels:,} pixels)" for at in most)
    return text + (f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else "")


def _packed(colors: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack (H, W, 3) uint8 colors into (H, W) uint32, 0xRRGGBB."""
    packed = np.zeros(colors.shape[:2], np.uint32)
    for channel in range(3):
        packed <<= 8
        packed |= colors[:, :, channel]
    return packed


def _by_colour(colours: NDArray[np.uint8], space: LabelSpace, ignore_label: int) -> NDArray[np.uint8]:
    """Return class ids for a label space's colors; all other colors are void, as in published color labels."""
    published = LabelEncoding((), (), space.colors or tuple((color,) for color in space.palette))
    ids = _ids_of_colors(colours, published, ignore_label)
    return np.where(ids == _UNKNOWN, ignore_label, ids).astype(np.uint8)


def _check(ids: NDArray[np.uint8], classes: int, ignore_label: int) -> NDArray[np.uint8]:
    """Return the ids, or raise `UnknownClasses` if one is neither a class nor `ignore_label`."""
    wrong = (ids >= classes) & (ids != ignore_label)
    if wrong.any():
        raise UnknownClasses(
            f"has values {np.unique(ids[wrong])[:5].tolist()}, which are neither one of {classes} classes nor the "
            f"ignore label {ignore_label}: choose the --label-space that the files are written in"
        )
    return ids
