"""Allocator settings of the C library (glibc) for networks: memory that a layer frees is kept for the next layer.

By default, glibc maps new memory for every feature map of more than 32 MiB, and the system clears each page at its
first access: a sixth of the time of a full-width prediction. Each thread except the main one also has a heap of its
own; glibc returns its pieces to the system as soon as they are empty. With these settings there is one heap, which
keeps the memory of the process's largest image. They are meant for processes that only predict.
"""

from __future__ import annotations

import ctypes

__all__ = ["ALLOCATOR_ENVIRONMENT", "keep_freed_memory"]

# Parameter numbers of glibc's `mallopt` (malloc.h).
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_ARENA_MAX = -8
_NEVER = 2**31 - 1
# Environment variables that apply the settings to all threads: glibc reads them when a process starts. Other C
# libraries ignore them.
ALLOCATOR_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER)}


def keep_freed_memory() -> bool:
    """Apply the allocator settings to this process, from now on and on its main thread.

    Other threads keep the heaps that they already have, and later threads may use those heaps.

    Returns:
        True if glibc accepted all settings; False otherwise, for example without glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
