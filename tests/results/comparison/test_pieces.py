"""Tests of a comparison's streams and short lists, against dictionaries and sorting."""

from __future__ import annotations

import secrets
import tracemalloc

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from pipeline.results.comparison import tally
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


def test_rows_of_a_table_are_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_GROUP_ROWS", 100)
    names = [secrets.token_hex(32) for _ in range(10_000)]
    tracemalloc.start()
    table = tally.TableFile(pa.schema([("name", pa.string())]))
    for name in names:
        table.add({"name": name})
    path = table.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000 < path.stat().st_size
    assert pq.read_table(path)["name"].to_pylist() == names
    del table
    assert not path.exists()
