"""The one thing that EXIF says about pixels: how the picture is turned."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["exif_orientation", "turned"]

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4


def exif_orientation(block: bytes) -> int:
    """The orientation (1–8) in the first directory of an EXIF block; 1 if it says none, or makes no sense.

    Nothing else is read: values, further directories and thumbnails of strangers are nobody's business here.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
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


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, …) as stored → as seen."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # What is left after that: which of the two axes run backwards.
    down, right = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::right])
