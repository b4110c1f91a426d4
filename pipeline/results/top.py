"""The rows with the greatest keys among any number of rows, in memory of a few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Top"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

# Rows that wait at least until they are sorted in: sorting for a few at a time would take most of the time.
_WAITING = 4096


class Top:
    """Keeps the `size` rows of the greatest keys; among equals the first.

    With random keys it is a sample in which all rows are equally likely.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys, self._positions, self._values = np.empty(0), np.empty(0, np.int64), np.empty(0)
        self._waiting: list[tuple[Floats, Positions, Floats]] = []
        self._rows = 0

    def add(self, keys: Floats, positions: Positions, values: Floats | None = None) -> None:
        """Offers rows.

        Args:
            keys: (N,); rows whose key is NaN do not take part.
            positions: (N,) of the rows, greater than all before.
            values: (N,) to keep beside; None = the keys.
        """
        values = keys if values is None else values
        chosen = keys > self._threshold()
        self._waiting.append((keys[chosen], positions[chosen], values[chosen]))
        self._rows += int(chosen.sum())
        if self._rows >= max(self._size, _WAITING):
            self._sort_in()

    @property
    def positions(self) -> Positions:
        """Of the kept rows, the greatest key first."""
        self._sort_in()
        return self._positions

    @property
    def values(self) -> Floats:
        """Of the kept rows, in the same order."""
        self._sort_in()
        return self._values

    def _threshold(self) -> float:
        # Rows that only equal the least kept key come later, and lose.
        return float(self._keys[-1]) if len(self._keys) == self._size else -np.inf

    def _sort_in(self) -> None:
        kept = (self._keys, self._positions, self._values)
        keys, positions, values = (np.concatenate(columns) for columns in zip(kept, *self._waiting, strict=True))
        order = np.lexsort((positions, -keys))[: self._size]
        self._keys, self._positions, self._values = keys[order], positions[order], values[order]
        self._waiting, self._rows = [], 0
