"""Streaming selection of the few items with the greatest keys."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

__all__ = ["Greatest"]

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
