"""Tests of prefetching: results in order, and never more than the limit ahead."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.concurrency import prefetch_map


@settings(max_examples=30)
@given(items=st.lists(st.integers(), max_size=12), count=st.integers(0, 5), threads=st.integers(1, 3))
def test_every_item_in_order(items: list[int], count: int, threads: int) -> None:
    pairs = [
        (item, result.result())
        for item, result in prefetch_map("t", lambda n: n + 1, items, count=count, threads=threads)
    ]
    assert pairs == [(item, item + 1) for item in items]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_no_more_items_are_taken_than_asked_for(count: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    for number, _ in prefetch_map("t", lambda n: n, items(), count=count, threads=2):
        assert len(taken) == min(10, number + 1 + count)


def test_work_goes_on_while_the_caller_does_something_else() -> None:
    second = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            second.set()

    results = prefetch_map("t", work, range(3), count=1, threads=1)
    next(results)
    assert second.wait(20)
    results.close()


def test_an_error_is_its_items_own() -> None:
    results = dict(prefetch_map("t", lambda n: 1 // n, [1, 0, 2], count=1, threads=1))
    assert results[1].result() == 1 and results[2].result() == 0
    with pytest.raises(ZeroDivisionError):
        results[0].result()


def test_leaving_early_drops_what_has_not_begun() -> None:
    begun = []
    go_on = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        assert go_on.wait(20)

    with contextlib.closing(prefetch_map("t", work, range(100), count=50, threads=1)) as results:
        next(results)
        go_on.set()
    assert len(begun) < 52
