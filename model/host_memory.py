"""The C library's allocator, set up for networks: memory that a layer frees is kept for the next one."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory instead of giving it back; False where there is no glibc.

    By default every feature map of more than 32 MiB is mapped afresh, and the system clears each page at its first
    touch: a sixth of a full-width prediction. The process keeps the memory of its largest image. Holds for the whole
    process: for processes that predict and do nothing else.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
