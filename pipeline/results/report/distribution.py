"""Streaming histogram of values between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "Distribution"]

# Number of bins; with 10,000 the median is exact to a hundredth of a percent.
_FINE = 10_000


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram.

    Attributes:
        low: Lower end of the bar's range, included.
        high: Upper end of the bar's range, included only in the last bar.
        count: Number of values in the range.
    """

    low: float
    high: float
    count: int


class Distribution:
    """Histogram of values in [0, 1] that grows as values are added; NaN counts nowhere."""

    def __init__(self) -> None:
        self._counts = np.zeros(_FINE, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Count (N,) values in [0, 1], except those that are NaN."""
        # The clip puts the value 1 into the last bin.
        cells = (values[~np.isnan(values)] * _FINE).astype(np.int64).clip(0, _FINE - 1)
        self._counts += np.bincount(cells, minlength=_FINE)

    @property
    def total(self) -> int:
        """Return the number of values counted so far."""
        return int(self._counts.sum())

    def median(self) -> float | None:
        """Return the median, exact to a hundredth of a percent; None without values."""
        if not self.total:
            return None
        cell = int(np.searchsorted(np.cumsum(self._counts), (self.total + 1) // 2))
        return (cell + 0.5) / _FINE

    def bars(self, count: int = 20) -> list[Bar]:
        """Return the histogram as bars of equal width from 0 to 1.

        Args:
            count: Number of bars; it must divide 10,000.
        """
        sums = self._counts.reshape(count, -1).sum(axis=1)
        return [Bar(each / count, (each + 1) / count, int(rows)) for each, rows in enumerate(sums)]
