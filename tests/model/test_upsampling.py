"""The last step against naive interpolation pixel by pixel, and against torch's transposed convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from model import upsampling
from model.upsampling import cells_needed, labels_from_scores
from tests.model import naive


@settings(max_examples=25, deadline=None)
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
def test_bands_change_nothing(upsampling_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    scores = torch.randn(3, 9, 9)
    results = []
    for cells in (1, 3, 100):
        monkeypatch.setattr(upsampling, "_BAND_CELLS", cells)
        results.append(labels_from_scores(scores, 61, 57, upsampling_kind, confidence=True))  # type: ignore[arg-type]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].labels, other.labels)
        np.testing.assert_array_equal(results[0].confidence, other.confidence)
        assert results[0].mean_entropy == pytest.approx(other.mean_entropy)


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


def test_no_more_than_a_band_exists_at_full_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    interpolate = upsampling._interpolate

    def recorded(cells: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        pixels = interpolate(cells, fractions)
        sizes.append(pixels.shape[1])
        return pixels

    monkeypatch.setattr(upsampling, "_interpolate", recorded)
    labels_from_scores(torch.zeros(2, 200, 5), 1590, 30)
    assert max(sizes) <= 32
