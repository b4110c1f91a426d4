"""The C library's allocator, set up for networks: memory that a layer frees is kept for the next one."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory instead of giving it back; False where there is no glibc.

    By default every feature map of more than 32 MiB is mapped afresh, and the system clears each page at its first
    touch: a sixth of a full-width prediction. And each thread but the main one has a heap of its own, in pieces that
    are given back as soon as they are empty: the network has to run on the main thread, or on one that starts after
    this call, to have its memory kept. The process keeps the memory of its largest image. Holds for the whole process:
    for processes that predict and do nothing else.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
