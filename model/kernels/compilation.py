"""Compilation of pixel loops with numba, for computations that neither torch nor numpy does in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, and cache the machine code on disk for later processes.

    The compiled code runs without Python's global interpreter lock. If neither the source file's folder nor the user's
    cache is writable, nothing is cached.

    Args:
        function: Function that numba can compile.

    Returns:
        Compiled function with the same parameters.
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
            # The disk is full. The function is compiled but not cached, and has not run yet: call it again.
            return fast(*arguments)

    return call
