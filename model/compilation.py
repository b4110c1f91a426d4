"""Loops over pixels as compiled code (numba), for whatever neither torch nor numpy does in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles at the first call, without Python's lock, and keeps the code on disk for later processes.

    Where there is no place to write, beside the file or in the user's cache, nothing is kept.
    """
    try:
        fast = njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return fast(*arguments)
        except OSError:
            # The disk is full: compiled all the same, only not kept, and nothing has run yet.
            return fast(*arguments)

    return call
