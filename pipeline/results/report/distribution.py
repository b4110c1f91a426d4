"""How values between 0 and 1 are distributed, counted as they pass by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "Distribution"]

# The median is exact to a hundredth of a percent.
_FINE = 10_000


@dataclass(frozen=True)
class Bar:
    """How many values lie from `low` up to `high`; the last bar holds those at `high` too."""

    low: float
    high: float
    count: int


class Distribution:
    """Counts of values; those that are NaN count nowhere."""

    def __init__(self) -> None:
        self._counts = np.zeros(_FINE, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Counts (N,) values within [0, 1]."""
        cells = (values[~np.isnan(values)] * _FINE).astype(np.int64).clip(0, _FINE - 1)
        self._counts += np.bincount(cells, minlength=_FINE)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self._counts.sum())

    def median(self) -> float | None:
        """The value in the middle; None of no values."""
        if not self.total:
            return None
        cell = int(np.searchsorted(np.cumsum(self._counts), (self.total + 1) // 2))
        return (cell + 0.5) / _FINE

    def bars(self, count: int = 20) -> list[Bar]:
        """Equal steps from 0 to 1; `count` must divide 10,000."""
        sums = self._counts.reshape(count, -1).sum(axis=1)
        return [Bar(each / count, (each + 1) / count, int(rows)) for each, rows in enumerate(sums)]
