"""TIFF structures: the orientation in EXIF data, and limits of TIFF files that are checked before decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError

__all__ = ["apply_orientation", "check_tiff", "exif_orientation"]

_ORIENTATION = 0x0112
_SHORT = 3
_LONG = 4


def exif_orientation(block: bytes) -> int:
    """Return the orientation (1–8) in the first directory of an EXIF block, or 1 if there is no valid one.

    Nothing else of an untrusted file is read: no other values, further directories or thumbnails.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        # A TIFF header: byte order, magic number, offset of the first directory. A directory has a count and entries of
        # 12 bytes: tag, type, number of values, value.
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        for place in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", block, place)
            if tag == _ORIENTATION and kind in (_SHORT, _LONG) and number == 1:
                (value,) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", block, place + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate or mirror stored pixels (H, W, …) according to their EXIF orientation.

    Args:
        pixels: Pixels as stored, with any number of trailing axes.
        orientation: EXIF orientation, 1–8.

    Returns:
        A contiguous array of the pixels as seen.
    """
    # Orientations 5–8 swap rows and columns.
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # The remaining effect is a reversal of rows, columns or both.
    down, right = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::right])


# Bytes per value, by type. Decoders keep values of the types in `_BYTES`, which are not numbers, as bytes in memory.
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 7)
# Tags with the sides of the image and of its tiles.
_WIDTH = 256
_HEIGHT = 257
_TILE_WIDTH = 322
_TILE_HEIGHT = 323
# Tags that name the Exif, GPS and interoperability directories, which Pillow reads too.
_POINTERS = (34665, 34853, 40965)
_DIRECTORIES = 8  # largest number of directories that are checked
_VALUES = 2**18  # largest number of values in all directories; a transfer function of 16 bits has 196,608
_TILE_PIXELS = 2**20  # pixels that a tile may have in any image


def check_tiff(data: bytes, max_pixels: int) -> None:
    """Refuse a TIFF with excessive claims in its tags, or with a tile or image that is too large.

    Tags must not claim more bytes than the file holds, nor too many numbers. Several tags may name the same bytes, and
    libtiff copies them for each tag; the limit therefore applies to the sum of their claims.

    Args:
        data: Bytes of the whole file.
        max_pixels: Largest number of pixels, width × height.

    Raises:
        DecodeError: If a limit is exceeded; the message is the reason.
        struct.error: If the file is truncated.
    """
    # Byte order, and whether it is a BigTIFF (version 43), whose offsets have 64 bits.
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    (first,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    # Visit each directory once, so that directories that point to each other cause no endless loop.
    waiting = [first]
    known = {first}
    values = 0
    claimed = 0
    while waiting:
        sides = dict.fromkeys((_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT), 0)
        for tag, kind, count, inline in _entries(data, waiting.pop(), order, big):
            size = count * _UNITS.get(kind, 0)
            values += 1 if kind in _BYTES else count
            # Values that fit into the entry itself claim no further bytes.
            claimed += size if size > len(inline) else 0
            if claimed > len(data):
                raise DecodeError(f"damaged: the tags of a TIFF claim more than the {len(data)} bytes of the file")
            if values > _VALUES:
                raise DecodeError(f"damaged: more than {_VALUES} values in the tags of a TIFF")
            if tag in sides:
                sides[tag] = max(sides[tag], _number(inline, kind, order))
            elif tag in _POINTERS:
                place = _number(inline, kind, order)
                if place not in known and len(known) < _DIRECTORIES:
                    known.add(place)
                    waiting.append(place)
        _check_sides(sides, max_pixels)


def _entries(data: bytes, place: int, order: str, big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, number of values, and the bytes that hold the value or its offset, of each entry."""
    (entries,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, place)
    place += 8 if big else 2
    entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
    for _ in range(entries):
        yield entry.unpack_from(data, place)
        place += entry.size


def _number(inline: bytes, kind: int, order: str) -> int:
    """Return a whole number stored within its entry, or 0 for other types, which are invalid for these tags."""
    form = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind, "")
    size = struct.calcsize(f"{order}{form}")
    return int(struct.unpack_from(f"{order}{form}", inline)[0]) if form and size <= len(inline) else 0


def _check_sides(sides: Mapping[int, int], max_pixels: int) -> None:
    """Raise DecodeError if an image or its tiles have too many pixels."""
    width = sides[_WIDTH]
    height = sides[_HEIGHT]
    if width * height > max_pixels:
        raise DecodeError(f"{width}×{height} pixels are more than the limit of {max_pixels}")
    tile = sides[_TILE_WIDTH] * sides[_TILE_HEIGHT]
    if tile > max(_TILE_PIXELS, max_pixels):
        raise DecodeError(
            f"tiles of {sides[_TILE_WIDTH]}×{sides[_TILE_HEIGHT]} pixels in an image of {width}×{height} are too large"
        )
