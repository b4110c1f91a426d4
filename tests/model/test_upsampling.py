"""Tests of the last step, against naive interpolation pixel by pixel and torch's transposed convolution.

`test_fused_last_step` compares the two implementations, the fused one and torch's.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from model.dilated.network import Upsampling
from model.prediction import upsampling
from model.prediction.upsampling import cells_needed, labels_from_scores
from tests.model import naive


@settings(max_examples=25)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(2, 5), st.integers(0, 2**31))
def test_grid_equals_the_definition(height: int, width: int, classes: int, seed: int) -> None:
    scores = torch.randn(classes, *cells_needed(height, width, "grid"), generator=torch.Generator().manual_seed(seed))
    result = labels_from_scores(scores, height, width, confidence=True)
    expected = naive.upsample(scores.double().softmax(dim=0).numpy(), height, width)
    winners = np.take_along_axis(expected, result.labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(winners, expected.max(axis=0), atol=1e-6)
    assert result.mean_confidence == pytest.approx(expected.max(axis=0).mean(), abs=1e-6)
    assert result.mean_entropy == pytest.approx(-(expected * np.log(expected)).sum(axis=0).mean(), abs=1e-5)
    assert result.confidence is not None
    assert np.abs(result.confidence - 255 * expected.max(axis=0)).max() <= 0.51


def test_pixels_on_cells_take_the_cell_itself() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 7, 8)
    labels = labels_from_scores(scores, 41, 49).labels
    np.testing.assert_array_equal(labels[::8, ::8], scores.argmax(dim=0).numpy()[:6, :7])


def test_torchs_default_interpolation_is_another_function() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 12, 12)
    ours = labels_from_scores(scores, 88, 88).labels
    theirs = functional.interpolate(scores.softmax(0)[None, :, :11, :11], scale_factor=8, mode="bilinear")[0].argmax(0)
    assert (ours != theirs.numpy()).mean() > 0.05


def test_ties_go_to_the_lowest_class() -> None:
    assert not labels_from_scores(torch.zeros(4, 3, 3), 16, 16).labels.any()


@pytest.mark.parametrize("upsampling_kind", ["grid", "deconvolution"])
def test_bands_change_nothing(upsampling_kind: Upsampling, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    scores = torch.randn(3, 9, 9)
    results = []
    for floats in (1, 3 * 8 * 3 * 88, 2**27):
        monkeypatch.setattr(upsampling, "_BAND_FLOATS", floats)
        results.append(upsampling._by_torch(scores, 61, 57, upsampling_kind, True, None))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].labels, other.labels)
        np.testing.assert_array_equal(results[0].winning, other.winning)
        np.testing.assert_array_equal(results[0].pairs, other.pairs)
        assert results[0].total_entropy == pytest.approx(other.total_entropy)


@pytest.mark.parametrize("height,width", [(64, 80), (61, 75), (5, 3)])
def test_deconvolution_equals_torchs(height: int, width: int) -> None:
    torch.manual_seed(2)
    scores = torch.randn(4, *cells_needed(height, width, "deconvolution"))
    # Caffe's bilinear filler for kernel 16: 1 - |i/8 - 15/16|.
    kernel = torch.tensor([1 - abs(i / 8 - 0.9375) for i in range(16)])
    weight = (kernel[:, None] * kernel).expand(4, 1, 16, 16)
    full = functional.conv_transpose2d(scores[None], weight, stride=8, padding=4, groups=4)[0, :, :height, :width]
    result = labels_from_scores(scores, height, width, "deconvolution")
    probabilities = full.double().softmax(dim=0)
    chosen = probabilities.gather(0, torch.from_numpy(result.labels).long()[None])[0]
    torch.testing.assert_close(chosen, probabilities.max(dim=0).values, rtol=0, atol=1e-6)
    assert result.mean_confidence == pytest.approx(float(chosen.mean()), abs=1e-6)


def test_too_small_a_score_map_is_refused() -> None:
    with pytest.raises(ValueError, match="3×3 cells"):
        labels_from_scores(torch.zeros(2, 2, 2), 16, 16)


def test_by_torch_no_more_than_a_band_exists_at_full_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    interpolate = upsampling._interpolate

    def recorded(cells: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        pixels = interpolate(cells, fractions)
        sizes.append(pixels.numel())
        return pixels

    monkeypatch.setattr(upsampling, "_interpolate", recorded)
    monkeypatch.setattr(upsampling, "_BAND_FLOATS", 3000)
    upsampling._by_torch(torch.zeros(2, 200, 5), 1590, 30, "grid", False, None)
    assert len(sizes) == 50 and max(sizes) <= 3000


def test_fused_no_more_than_a_few_rows_exist_at_full_resolution() -> None:
    scores = torch.zeros(20, 102, 102)
    labels_from_scores(scores, 800, 800)  # compiled now, if not before
    tracemalloc.start()
    labels_from_scores(scores, 800, 800)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Labels, rows of float32 for each class and six more, counts, and some small objects.
    assert 800 * 800 < peak < 800 * 800 + 26 * 820 * 4 + 256 * 20 * 8 + 50_000


def test_a_target_of_another_size_or_type_is_refused() -> None:
    for target in (np.zeros((16, 15), np.uint8), np.zeros((16, 16), np.int64)):
        with pytest.raises(ValueError, match=r"must be \(16, 16\) uint8"):
            labels_from_scores(torch.zeros(2, 3, 3), 16, 16, target=target)
