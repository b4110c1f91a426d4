"""Tests of counts and scores, against torchmetrics and a loop over pixels."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from pipeline.results.statistics.scores import (
    class_counts,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    pixel_counts,
    ratio,
)

CLASSES = 5
VOID = 255
masks = arrays(np.uint8, (7, 9), elements=st.integers(0, CLASSES - 1))
labels = arrays(np.uint8, (7, 9), elements=st.sampled_from([*range(CLASSES), VOID]))


@settings(max_examples=60)
@given(labels, masks)
def test_confusion_is_torchmetrics(target: np.ndarray, predicted: np.ndarray) -> None:
    expected = MulticlassConfusionMatrix(CLASSES, ignore_index=VOID)(
        torch.from_numpy(predicted).long(), torch.from_numpy(target).long()
    )
    assert np.array_equal(confusion_matrix(target, predicted, CLASSES, VOID), expected.numpy())


@settings(max_examples=60)
@given(labels, masks)
def test_iou_is_torchmetrics_where_it_is_defined(target: np.ndarray, predicted: np.ndarray) -> None:
    confusion = confusion_matrix(target, predicted, CLASSES, VOID)
    metric = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=VOID, zero_division=-1)
    expected = metric(torch.from_numpy(predicted).long(), torch.from_numpy(target).long()).tolist()
    ours = [-1 if value is None else value for value in iou_per_class(confusion)]
    assert ours == pytest.approx(expected)
    defined = [value for value in ours if value >= 0]
    assert mean_iou(confusion) == (pytest.approx(np.mean(defined)) if defined else None)


@settings(max_examples=40)
@given(labels, masks)
def test_counts_are_those_of_a_loop(target: np.ndarray, predicted: np.ndarray) -> None:
    confusion = confusion_matrix(target, predicted, CLASSES, VOID)
    rows = class_counts([str(c) for c in range(CLASSES)], pixel_counts(predicted, CLASSES), confusion)
    for row in rows:
        c = row["class_id"]
        pairs = list(zip(target.ravel(), predicted.ravel(), strict=True))
        assert row["predicted_pixels"] == sum(p == c and t != VOID for t, p in pairs)
        assert row["target_pixels"] == sum(t == c for t, _ in pairs)
        assert row["intersection"] == sum(t == c and p == c for t, p in pairs)
    valid = target != VOID
    expected = float((predicted == target)[valid].mean()) if valid.any() else None
    assert pixel_accuracy(confusion) == (None if expected is None else pytest.approx(expected))


def test_an_ignore_label_may_lie_among_the_classes() -> None:
    target = np.array([[0, 1, 2]], np.uint8)
    predicted = np.array([[0, 0, 2]], np.uint8)
    assert confusion_matrix(target, predicted, 3, ignore_label=1).sum() == 2


def test_without_a_label_all_pixels_count_and_the_rest_is_null() -> None:
    mask = np.array([[0, 0, 1]], np.uint8)
    first, second = class_counts(["a", "b"], pixel_counts(mask, 2), None)
    assert (first["predicted_pixels"], second["predicted_pixels"]) == (2, 1)
    assert first["target_pixels"] is None and first["intersection"] is None


def test_undefined_is_none() -> None:
    nothing = np.zeros((2, 2), np.int64)
    assert iou_per_class(nothing) == [None, None]
    assert mean_iou(nothing) is None and pixel_accuracy(nothing) is None and ratio(0, 0) is None


@pytest.mark.parametrize(
    ("target", "predicted", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "differ in size"),
        (np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8), "not below 3"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), "not below 3"),
    ],
)
def test_what_cannot_be_counted_is_refused(target: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(target, predicted, 3)
