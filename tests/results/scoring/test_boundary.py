"""Tests of regions near outlines, against erosion, and of the score, against its definition."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion

from pipeline.results.scoring.measures import boundary_counts, boundary_region, boundary_width

CLASSES = 3
VOID = 255
SQUARE = np.ones((3, 3), bool)
sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
labels = sizes.flatmap(lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 2, VOID])))


def eroded_away(ids: np.ndarray, distance: int) -> np.ndarray:
    """Return the pixels that erosion removes from the region of each id, one id at a time.

    Pixels beyond the image belong to no region.
    """
    region = np.zeros(ids.shape, bool)
    for each in np.unique(ids):
        own = ids == each
        region |= own & ~binary_erosion(own, SQUARE, iterations=distance, border_value=0)
    return region


@settings(max_examples=200)
@given(labels, st.integers(1, 6))
def test_a_region_is_what_erosion_takes(ids: np.ndarray, distance: int) -> None:
    assert np.array_equal(boundary_region(ids, distance), eroded_away(ids, distance))


def test_smooth_shapes_too() -> None:
    rows, columns = np.indices((90, 120))
    ids = ((rows - 40) ** 2 + (columns - 60) ** 2 < 30**2).astype(np.uint8) + (columns > 100)
    for distance in (1, 3, 9):
        assert np.array_equal(boundary_region(ids, distance), eroded_away(ids, distance))


def test_counts_leave_void_out_and_ask_for_the_same_class() -> None:
    generator = np.random.default_rng(4)
    target = generator.integers(0, CLASSES, (6, 8)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
    target[20:24] = VOID
    predicted = np.roll(target, 3, axis=1) % CLASSES
    of_mask, of_label, both = boundary_counts(target, predicted, CLASSES, VOID)
    distance = boundary_width(*target.shape)
    assert distance == round(0.02 * np.hypot(54, 72)) == 2
    near_label = eroded_away(target, distance)
    near_mask = eroded_away(predicted, distance)
    valid = target != VOID
    for each in range(CLASSES):
        label = near_label & (target == each) & valid
        mask = near_mask & (predicted == each) & valid
        assert (of_mask[each], of_label[each], both[each]) == (mask.sum(), label.sum(), (mask & label).sum())


def test_a_shifted_outline_costs_more_than_by_iou() -> None:
    target = np.zeros((200, 200), np.uint8)
    target[50:150, 50:150] = 1
    predicted = np.roll(target, 3, axis=1)
    of_mask, of_label, both = boundary_counts(target, predicted, 2)
    iou = (target & predicted).sum() / (target | predicted).sum()
    assert both[1] / (of_mask[1] + of_label[1] - both[1]) < 0.75 * iou


@pytest.mark.parametrize(("size", "width"), [((1, 1), 1), ((360, 480), 12), ((1024, 2048), 46)])
def test_widths(size: tuple[int, int], width: int) -> None:
    assert boundary_width(*size) == width
