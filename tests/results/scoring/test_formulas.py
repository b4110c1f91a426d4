"""Tests of scores, against torchmetrics, or against loops where torchmetrics has no such score."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from pipeline.results.scoring.counts import Counts, count
from pipeline.results.scoring.rows import CLASS_SCORES, MEAN_SCORES, class_scores, mean_scores
from pipeline.results.statistics.scores import iou_per_class, mean_iou

CLASSES = 4
VOID = 255
SIZE = (7, 8)
masks = arrays(np.uint8, SIZE, elements=st.integers(0, CLASSES - 1))
labels = arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, VOID]))


def counted(target: np.ndarray, predicted: np.ndarray) -> Counts:
    return count(target, predicted, None, CLASSES, VOID)


@settings(max_examples=40)
@given(labels, masks)
def test_scores_of_classes_are_those_of_torchmetrics(target: np.ndarray, predicted: np.ndarray) -> None:
    ours = class_scores(counted(target, predicted).sums())
    pair = torch.from_numpy(predicted).long(), torch.from_numpy(target).long()
    peers = {
        "iou": multiclass_jaccard_index,
        "dice": multiclass_f1_score,
        "precision": multiclass_precision,
        "recall": multiclass_recall,
    }
    for name, peer in peers.items():
        expected = peer(*pair, CLASSES, average="none", ignore_index=VOID).numpy()
        # An undefined score is NaN here, but 0 in torchmetrics.
        assert np.nan_to_num(ours[name]) == pytest.approx(expected, abs=1e-6), name


@settings(max_examples=40)
@given(labels, masks)
def test_means_over_what_is_defined(target: np.ndarray, predicted: np.ndarray) -> None:
    counts = counted(target, predicted)
    ours = {name: float(value) for name, value in mean_scores(counts.sums()).items()}
    valid = target != VOID
    if not valid.any():
        assert np.isnan(list(ours.values())).all()
        return
    present = [each for each in range(CLASSES) if (target == each).any()]
    recalls = [(predicted[target == each] == each).mean() for each in present]
    ious = iou_per_class(counts.confusion)
    weights = [(target == each).sum() / valid.sum() for each in present]
    assert ours["pixel_accuracy"] == pytest.approx((predicted == target)[valid].mean())
    assert ours["mean_accuracy"] == pytest.approx(np.mean(recalls))
    assert ours["mean_iou"] == pytest.approx(mean_iou(counts.confusion))
    weighted = sum(weight * (ious[each] or 0) for weight, each in zip(weights, present, strict=True))
    assert ours["frequency_weighted_iou"] == pytest.approx(weighted)
    if valid.all():
        pair = torch.from_numpy(predicted).long(), torch.from_numpy(target).long()
        assert ours["pixel_accuracy"] == pytest.approx(float(multiclass_accuracy(*pair, CLASSES, average="micro")))


def test_leading_dimensions_are_resamples_of_the_same_formulas() -> None:
    generator = np.random.default_rng(1)
    each = [
        counted(*(generator.integers(0, high, (9, 9), dtype=np.uint8) for high in (2, CLASSES))).sums()
        for _ in range(5)
    ]
    for scores, names in ((class_scores, CLASS_SCORES), (mean_scores, MEAN_SCORES)):
        together = scores(np.stack(each))
        assert tuple(together) == names
        for name in names:
            alone = np.stack([scores(sums)[name] for sums in each])
            assert np.array_equal(together[name], alone, equal_nan=True), name


def test_nothing_counted_is_undefined_and_a_perfect_mask_is_1() -> None:
    assert all(np.isnan(value) for value in mean_scores(Counts.zero(CLASSES).sums()).values())
    target = np.array([[0, 0, 1], [1, 1, VOID]], np.uint8)
    perfect = mean_scores(counted(target, np.where(target == VOID, 3, target)).sums())
    assert all(float(value) == 1.0 for value in perfect.values())
