"""Tests of the fused last step, against float64 pixel by pixel and bit by bit against torch's other device path."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.prediction import upsampling
from model.prediction.label_map import Counted, LabelMap
from model.prediction.upsampling import DECONVOLUTION, GRID, Upsampling, cells_needed, labels_from_scores
from pipeline.results.statistics.scores import confusion_matrix
from tests.model import naive
from tests.model.test_upsampling import check_against_exact, upsamplings

KINDS: tuple[Upsampling, ...] = (GRID, DECONVOLUTION)
MAPS = ("normal", "tied", "constant", "extreme", "sharp")


def score_map(kind: Upsampling, height: int, width: int, classes: int, values: str, seed: int) -> torch.Tensor:
    shape = (classes, *cells_needed(height, width, kind))
    generator = torch.Generator().manual_seed(seed)
    if values == "constant":
        return torch.full(shape, 2.5)
    if values == "tied":
        return torch.randint(0, 3, shape, generator=generator).float()
    return torch.randn(shape, generator=generator) * {"normal": 1.0, "sharp": 30.0, "extreme": 1e4}[values]


def check_against_torch(result: LabelMap, counted: Counted, kind: Upsampling) -> None:
    np.testing.assert_array_equal(result.labels, counted.labels)
    assert result.confidence is not None and counted.winning is not None
    # For scores, the sum of exponentials may differ in its last bit.
    difference = np.abs(result.confidence.astype(int) - counted.winning)
    assert difference.max() <= (0 if kind.interpolates == "probabilities" else 1)
    pixels = result.labels.size
    assert result.mean_confidence == pytest.approx(counted.total_confidence / pixels, abs=1e-6)
    assert result.mean_entropy == pytest.approx(counted.total_entropy / pixels, abs=2e-6)


@settings(max_examples=80)
@example(GRID, 1, 1, 1, "constant", 0)
@example(DECONVOLUTION, 1, 1, 1, "constant", 0)
@example(DECONVOLUTION, 8, 57, 25, "extreme", 0)
@given(
    st.sampled_from(KINDS) | upsamplings(),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 25),
    st.sampled_from(MAPS),
    st.integers(0, 2**31),
)
def test_equals_the_definition_and_torch(
    kind: Upsampling, height: int, width: int, classes: int, values: str, seed: int
) -> None:
    scores = score_map(kind, height, width, classes, values, seed)
    target = np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)
    result = labels_from_scores(scores, height, width, kind, confidence=True, target=target)
    counted = upsampling._by_torch(scores, height, width, kind, True, target)
    # Where fractions round, scores that should tie may differ in the last bit; so may the sums that decide the tie.
    if kind.name or kind.interpolates == "probabilities" or values != "tied":
        check_against_torch(result, counted, kind)
        np.testing.assert_array_equal(result.confusion, counted.pairs[:classes])
    np.testing.assert_array_equal(result.class_pixels, np.bincount(result.labels.ravel(), minlength=classes))
    np.testing.assert_array_equal(result.confusion, confusion_matrix(target, result.labels, classes))
    # float32 has three decimals for scores around 1e4, so no probability between 0 and 1 is exact.
    if kind.interpolates == "probabilities" or values != "extreme":
        exact = naive.upsample(scores.double().numpy(), np.arange(height), np.arange(width), kind)
        check_against_exact(result, exact, (1e-5 if values == "sharp" else 1e-6) * (1 if kind.name else 5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", MAPS)
def test_whole_images_equal_torchs_to_the_bit(kind: Upsampling, values: str) -> None:
    for seed in range(3):
        scores = score_map(kind, 203, 331, 19, values, seed)
        result = labels_from_scores(scores, 203, 331, kind, confidence=True)
        check_against_torch(result, upsampling._by_torch(scores, 203, 331, kind, True, None), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_of_equals_the_lowest_id_wins(kind: Upsampling) -> None:
    scores = score_map(kind, 90, 70, 1, "normal", 0)
    others = scores - 1
    labels = labels_from_scores(torch.cat([others, others, scores, others, scores, scores]), 90, 70, kind).labels
    assert set(np.unique(labels)) == {2}


def test_scores_apart_but_probabilities_equal() -> None:
    """float32 cannot distinguish exp(-2^-26) from 1, so the lower id must win, although its score is smaller."""
    small = torch.full((1, 6, 6), 0.25 - 2.0**-26)
    large = torch.full((1, 6, 6), 0.25)
    scores = torch.cat([small, large])
    labels = labels_from_scores(scores, 41, 41, DECONVOLUTION).labels
    np.testing.assert_array_equal(labels, upsampling._by_torch(scores, 41, 41, DECONVOLUTION, False, None).labels)
    assert not labels.any()


@pytest.mark.parametrize("classes", [2, 3, 5, 11, 19])
def test_close_scores_equal_torchs(classes: int) -> None:
    """All other scores affect whether probabilities are equal, if their scores differ by an ulp or two."""
    generator = torch.Generator().manual_seed(classes)
    scores = -torch.rand(classes, 1, 1, generator=generator).expand(-1, 30, 30) * 4
    units = torch.randint(-3, 1, (2, 30, 30), generator=generator) * 2.0**-25
    scores = torch.cat([units, scores])
    ours = labels_from_scores(scores, 233, 233, DECONVOLUTION).labels
    theirs = upsampling._by_torch(scores, 233, 233, DECONVOLUTION, False, None).labels
    # A few labels may differ, due to the sum's last bit, the order of its terms, or torch's exponential.
    assert (ours != theirs).mean() < 1e-3
    assert (ours == 0).mean() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_map_than_needed(kind: Upsampling) -> None:
    scores = torch.randn(4, 20, 30, generator=torch.Generator().manual_seed(0))
    result = labels_from_scores(scores, 50, 70, kind, confidence=True)
    check_against_torch(result, upsampling._by_torch(scores, 50, 70, kind, True, None), kind)
    whole = labels_from_scores(scores, 144, 200, kind)
    np.testing.assert_array_equal(result.labels, whole.labels[:50, :70])


@pytest.mark.parametrize("ignore_label", [255, 1, 0])
def test_ignored_pixels_count_nowhere(ignore_label: int) -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(np.array([0, 1, 2, ignore_label], np.uint8), (50, 40))
    target.flags.writeable = False
    scores = torch.randn(3, 8, 7, generator=torch.Generator().manual_seed(1))
    result = labels_from_scores(scores, 50, 40, target=target, ignore_label=ignore_label)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(target, result.labels, 3, ignore_label))
    assert result.class_pixels.sum() == 2000
    part = np.asfortranarray(np.tile(target, (2, 2)))[:50, :40]
    again = labels_from_scores(scores, 50, 40, target=part, ignore_label=ignore_label)
    np.testing.assert_array_equal(again.confusion, result.confusion)


def test_an_id_beyond_the_classes_is_refused() -> None:
    target = np.zeros((16, 16), np.uint8)
    target[3, 4] = 3
    with pytest.raises(ValueError, match="not below 3"):
        labels_from_scores(torch.zeros(3, 3, 3), 16, 16, target=target)
    assert labels_from_scores(torch.zeros(3, 3, 3), 16, 16, target=target, ignore_label=3).confusion is not None


def test_half_precision_and_strided_scores() -> None:
    scores = torch.randn(9, 8, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = labels_from_scores(scores.float().permute(2, 0, 1).contiguous(), 60, 50)
    result = labels_from_scores(scores.permute(2, 0, 1), 60, 50)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.mean_entropy == expected.mean_entropy


def test_who_does_not_predict_does_not_import_the_compiler() -> None:
    script = "import sys, model.prediction.dense_prediction; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
