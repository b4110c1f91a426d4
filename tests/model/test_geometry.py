"""Tests of reflection, windows and score-map sizes, against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.networks.dilated.geometry import FOOTPRINT, MARGIN, MIN_WINDOW, score_map_size
from model.prediction.geometry import plan_windows, reflect_indices


def reflect_once(position: int, size: int) -> int:
    """Reflect an index step by step, as OpenCV's borderInterpolate does for REFLECT_101."""
    if size == 1:
        return 0
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


@given(st.integers(1, 300), st.integers(0, 800), st.integers(0, 800))
def test_reflection_repeats_as_opencvs(size: int, before: int, after: int) -> None:
    expected = [reflect_once(position, size) for position in range(-before, size + after)]
    assert reflect_indices(size, before, after).tolist() == expected


def test_reflection_equals_numpys_where_one_is_enough() -> None:
    row = np.arange(400)
    np.testing.assert_array_equal(row[reflect_indices(400, MARGIN, MARGIN)], np.pad(row, MARGIN, mode="reflect"))


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(MIN_WINDOW, 900))
def test_windows_tile_the_score_map_once_within_the_limit(rows: int, columns: int, limit: int) -> None:
    covered = np.zeros((rows, columns), int)
    windows = plan_windows(rows, columns, limit, FOOTPRINT)
    for window in windows:
        covered[window.cells] += 1
        for axis, cells in zip(window.pixels(FOOTPRINT), (window.rows, window.columns), strict=True):
            assert axis.stop - axis.start == cells * 8 + 372 <= limit
    assert (covered == 1).all()
    sizes = {window.rows for window in windows}, {window.columns for window in windows}
    assert all(max(each) - min(each) <= 1 for each in sizes)
    most = (limit - 372) // 8
    assert len(windows) == -(-rows // most) * -(-columns // most)


def test_a_window_without_room_for_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="379"):
        plan_windows(1, 1, 379, FOOTPRINT)


@pytest.mark.parametrize(
    "size,cells", [((360, 480), (46, 61)), ((1, 1), (2, 2)), ((8, 9), (2, 3)), ((375, 500), (48, 64))]
)
def test_score_map_sizes(size: tuple[int, int], cells: tuple[int, int]) -> None:
    assert score_map_size(*size) == cells
