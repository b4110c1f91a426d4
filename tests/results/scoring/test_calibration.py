"""Tests of calibration, against torchmetrics, and of its curve, against a loop."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import binary_calibration_error

from pipeline.results.scoring.measures import calibration_counts, calibration_error, reliability

CLASSES = 3
VOID = 255
SIZE = (6, 7)
masks = arrays(np.uint8, SIZE, elements=st.integers(0, CLASSES - 1))
labels = arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, VOID]))
# Stay below 1: torchmetrics 1.x puts a confidence of exactly 1 into a separate bin.
confidences = arrays(np.uint8, SIZE, elements=st.integers(85, 254))


@settings(max_examples=60)
@given(confidences, masks, labels)
def test_the_error_is_torchmetrics(confidence: np.ndarray, predicted: np.ndarray, target: np.ndarray) -> None:
    counts = calibration_counts(confidence, predicted, target, CLASSES, VOID).sum(axis=0)
    valid = target != VOID
    if not valid.any():
        assert calibration_error(counts) is None
        return
    # The edges of torchmetrics are rounded: add a little, so that a value on an edge falls into the upper bin there
    # too.
    preds = torch.from_numpy(confidence[valid] / 255 + 1e-6)
    expected = binary_calibration_error(preds, torch.from_numpy((predicted == target)[valid]).long(), n_bins=15)
    assert calibration_error(counts) == pytest.approx(float(expected), abs=1e-5)


def test_counts_and_curve_by_hand() -> None:
    confidence = np.array([[255, 255, 128, 102]], np.uint8)
    predicted = np.array([[1, 1, 0, 2]], np.uint8)
    target = np.array([[1, 0, 0, VOID]], np.uint8)
    counts = calibration_counts(confidence, predicted, target, CLASSES, VOID)
    assert counts.sum() == 3 and counts[1, 255].tolist() == [1, 1] and counts[0, 128].tolist() == [0, 1]
    curve = reliability(counts.sum(axis=0))
    assert [(each.pixels, each.accuracy) for each in curve if each.pixels] == [(1, 1.0), (2, 0.5)]
    assert curve[7].confidence == pytest.approx(128 / 255) and curve[14].confidence == 1.0
    assert curve[0].confidence is None and curve[0].accuracy is None and curve[14].high == 1.0
    assert calibration_error(counts.sum(axis=0)) == pytest.approx((1 - 128 / 255 + 2 * 0.5) / 3)


def test_a_perfectly_calibrated_prediction_has_no_error() -> None:
    counts = np.zeros((256, 2), np.int64)
    counts[51] = 80, 20
    counts[204] = 20, 80
    assert calibration_error(counts) == pytest.approx(0.0)
