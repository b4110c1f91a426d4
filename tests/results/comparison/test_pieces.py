"""Tests of a comparison's streams and short lists, against dictionaries and sorting."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from pipeline.results.comparison.rows import merge_join
from pipeline.results.statistics.top import Greatest

keys = st.lists(st.text("abc", min_size=1, max_size=3), unique=True).map(sorted)


@given(keys, keys)
def test_a_merge_join_is_that_of_dictionaries(first: list[str], second: list[str]) -> None:
    pairs = list(merge_join(iter(first), iter(second), lambda key: key))
    assert pairs == [
        (key if key in first else None, key if key in second else None) for key in sorted({*first, *second})
    ]


@given(st.lists(st.integers(-3, 9)), st.integers(0, 5))
def test_the_greatest_are_the_first_of_the_sorted(values: list[int], size: int) -> None:
    kept: Greatest[int] = Greatest(size)
    for number, value in enumerate(values):
        kept.add(value, number)
    positive = [number for number, value in enumerate(values) if value > 0]
    assert kept.items() == sorted(positive, key=lambda number: (-values[number], number))[:size]
