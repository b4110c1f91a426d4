"""Quotients of counts where some have no denominator, and means over those that have one. Undefined is NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "mean_of_defined", "quotients"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.int64]


def quotients(part: Numbers, whole: Numbers) -> Floats:
    """Element by element, of one shape; NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def mean_of_defined(values: Floats) -> Floats:
    """(…, C) → (…), the mean of what is not NaN; NaN if all are."""
    defined = ~np.isnan(values)
    return quotients(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
