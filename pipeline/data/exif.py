"""EXIF orientation: how to read it, and how to apply it to pixels."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["apply_orientation", "exif_orientation"]

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
