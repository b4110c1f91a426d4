"""Objects that test modules share, apart from fixtures."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import TypeVar

from pipeline.data.storage import Storage

# One storage for all tests: making an S3 client takes a quarter of a second, and the session has one server.
STORAGE = Storage()
# `make chaos` runs sweeps in full; `make test` takes a few of their cases.
EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"

Case = TypeVar("Case")


def sampled(cases: Sequence[Case], count: int) -> Sequence[Case]:
    """Return `count` evenly spread cases, the first and, of several, the last among them; all cases in a full sweep."""
    if EXHAUSTIVE or len(cases) <= count:
        return cases
    return [cases[number * (len(cases) - 1) // max(1, count - 1)] for number in range(count)]


def examples(count: int) -> int:
    """Return a sixth of `count` examples, or all of them in a full sweep."""
    return count if EXHAUSTIVE else count // 6


def png_header(width: int, height: int) -> bytes:
    """Return a gray 8-bit PNG that ends after its header: a reader refuses it as truncated, or for its size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
