"""Streaming selection of the few items with the greatest keys."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Greatest", "Top"]

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
        if len(self._keys) < self._size:
            return -np.inf
        # A new row that only equals the smallest kept key comes later, so it is not kept. Without room, none is.
        return float(self._keys[-1]) if self._size else np.inf

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


Item = TypeVar("Item")


class Greatest(Generic[Item]):
    """Accumulator that keeps the items with the greatest keys above 0; of items with equal keys it keeps the first.

    Args:
        size: Maximum number of items to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._number = 0
        self._heap: list[tuple[float, int, Item]] = []

    def add(self, key: float, item: Item) -> None:
        """Add a candidate item; a key of 0 or less is ignored.

        Args:
            key: Sort key of the item.
            item: Any object; items need not be comparable.
        """
        # Descending unique numbers: earlier items win among equal keys, and items themselves are never compared.
        self._number -= 1
        if key > 0:
            heapq.heappush(self._heap, (key, self._number, item))
            if len(self._heap) > self._size:
                heapq.heappop(self._heap)

    def items(self) -> list[Item]:
        """Return the kept items, greatest key first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
