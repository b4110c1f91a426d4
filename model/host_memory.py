"""The C library's allocator, set up for networks: memory that a layer frees is kept for the next one.

By default every feature map of more than 32 MiB is mapped afresh, and the system clears each page at its first touch: a
sixth of a full-width prediction. And each thread but the main one has a heap of its own, in pieces that are given back
as soon as they are empty. With these settings there is one heap, which keeps the memory of the process's largest image:
for processes that predict and do nothing else.
"""

from __future__ import annotations

import ctypes

__all__ = ["ALLOCATOR_ENVIRONMENT", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
# Of processes that are to keep it on all their threads: read by glibc when they start, ignored elsewhere.
ALLOCATOR_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}


def keep_freed_memory() -> bool:
    """The same for this process, from now on and on its main thread; False where there is no glibc.

    Heaps that other threads have already are not taken from them, and later threads may be given those.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
