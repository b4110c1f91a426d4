"""Full outer merge join of two sorted streams, with one item of each in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["merge_join"]

Item = TypeVar("Item")


def merge_join(
    first: Iterable[Item], second: Iterable[Item], key: Callable[[Item], str]
) -> Iterator[tuple[Item | None, Item | None]]:
    """Pair the items of two sorted streams by key; an item without a partner is paired with None.

    Args:
        first: Items in strictly ascending order of their keys.
        second: Items in strictly ascending order of their keys.
        key: Function that returns the key of an item.

    Yields:
        (item of `first`, item of `second`) in ascending order of keys; at most one of them is None.
    """
    firsts = iter(first)
    seconds = iter(second)
    left = next(firsts, None)
    right = next(seconds, None)
    # Take the item with the smaller key, or both if the keys are equal.
    while left is not None or right is not None:
        taken_left = left if right is None or (left is not None and key(left) <= key(right)) else None
        taken_right = right if left is None or (right is not None and key(right) <= key(left)) else None
        yield taken_left, taken_right
        left = left if taken_left is None else next(firsts, None)
        right = right if taken_right is None else next(seconds, None)
