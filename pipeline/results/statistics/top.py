"""Streaming selection of the rows with the greatest keys, in memory that does not grow with the number of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Top"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

# Rows are buffered up to this number before a sort; sorting a few rows at a time would dominate the run time.
_WAITING = 4096


class Top:
    """Accumulator that keeps the rows with the greatest keys; of rows with equal keys it keeps the first.

    With random keys it is a sample in which all rows are equally likely.

    Args:
        size: Maximum number of rows to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys = np.empty(0)
        self._positions = np.empty(0, np.int64)
        self._values = np.empty(0)
        self._waiting: list[tuple[Floats, Positions, Floats]] = []
        self._rows = 0

    def add(self, keys: Floats, positions: Positions, values: Floats | None = None) -> None:
        """Add N candidate rows.

        Args:
            keys: (N,) sort keys. A row whose key is NaN is skipped.
            positions: (N,) positions of the rows, greater than all positions before.
            values: (N,) values to keep with the rows; None to keep the keys.
        """
        values = keys if values is None else values
        # A comparison with NaN is false, so this also drops rows without a key.
        chosen = keys > self._threshold()
        self._waiting.append((keys[chosen], positions[chosen], values[chosen]))
        self._rows += int(chosen.sum())
        if self._rows >= max(self._size, _WAITING):
            self._sort_in()

    @property
    def positions(self) -> Positions:
        """Return the positions of the kept rows, greatest key first."""
        self._sort_in()
        return self._positions

    @property
    def values(self) -> Floats:
        """Return the values of the kept rows, greatest key first."""
        self._sort_in()
        return self._values

    def _threshold(self) -> float:
        # A new row that only equals the smallest kept key comes later, so it is not kept.
        return float(self._keys[-1]) if len(self._keys) == self._size else -np.inf

    def _sort_in(self) -> None:
        kept = (self._keys, self._positions, self._values)
        keys, positions, values = (np.concatenate(columns) for columns in zip(kept, *self._waiting, strict=True))
        # Descending by key, then ascending by position.
        order = np.lexsort((positions, -keys))[: self._size]
        self._keys = keys[order]
        self._positions = positions[order]
        self._values = values[order]
        self._waiting = []
        self._rows = 0
