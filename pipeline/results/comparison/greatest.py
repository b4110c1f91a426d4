"""The few items with the greatest keys among any number of items."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

__all__ = ["Greatest"]

Item = TypeVar("Item")


class Greatest(Generic[Item]):
    """Keeps the `size` items of the greatest keys above 0; among equals the first."""

    def __init__(self, size: int) -> None:
        self._size, self._number = size, 0
        self._heap: list[tuple[float, int, Item]] = []

    def add(self, key: float, item: Item) -> None:
        """Offers an item."""
        # No two have the same number, so that items are never compared.
        self._number -= 1
        if key > 0:
            heapq.heappush(self._heap, (key, self._number, item))
            if len(self._heap) > self._size:
                heapq.heappop(self._heap)

    def items(self) -> list[Item]:
        """The kept items, the greatest key first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
