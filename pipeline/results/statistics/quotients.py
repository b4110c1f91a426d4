"""Quotients of counts and means over the defined ones; a quotient with a zero denominator is NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "mean_of_defined", "quotients"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.int64]


def quotients(part: Numbers, whole: Numbers) -> Floats:
    """Divide arrays of the same shape element by element; the result is NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def mean_of_defined(values: Floats) -> Floats:
    """Average the values that are not NaN along the last axis.

    Args:
        values: (…, C) values; NaN where undefined.

    Returns:
        (…) means; NaN where all C values are NaN.
    """
    # Zeros replace NaN in the sum, and the count of defined values divides it: (…, C) -> (…).
    defined = ~np.isnan(values)
    return quotients(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
