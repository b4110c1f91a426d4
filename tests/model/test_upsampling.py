"""Tests of the last step, against torch's interpolation and transposed convolution.

`test_fused_upsample_argmax` compares the two implementations, the fused one and torch's, with the definition.
"""

from __future__ import annotations

import math
import re
import tracemalloc
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from model.prediction import upsampling
from model.prediction.label_map import LabelMap
from model.prediction.upsampling import DECONVOLUTION, GRID, Upsampling, cells_needed, labels_from_scores


def check_against_exact(result: LabelMap, probabilities: NDArray[np.float64], tolerance: float = 1e-6) -> None:
    best = probabilities.max(axis=0)
    chosen = np.take_along_axis(probabilities, result.labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, best, rtol=0, atol=tolerance)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=0)
    assert result.mean_entropy == pytest.approx(entropy.mean(), abs=10 * tolerance)
    assert result.mean_confidence == pytest.approx(best.mean(), abs=tolerance)
    assert result.confidence is not None
    assert np.abs(result.confidence - 255 * best).max() <= 0.5 + 255 * tolerance


@st.composite
def upsamplings(draw: st.DrawFn) -> Upsampling:
    """Draw any upsampling of at most 11 pixels a cell; half of the anchors are halves of pixels."""
    stride = draw(st.integers(1, 11))
    anchors = st.floats(-4 * stride, stride - 1) | st.integers(-8 * stride, 2 * stride - 2).map(lambda twice: twice / 2)
    interpolates = draw(st.sampled_from(("probabilities", "scores")))
    return Upsampling(stride, draw(anchors), interpolates, draw(st.sampled_from(("clamp", "zeros"))))


@pytest.mark.parametrize(
    ("kind", "size", "cells"),
    [
        (GRID, (16, 17), (3, 3)),
        (DECONVOLUTION, (16, 17), (2, 3)),
        (Upsampling(1, 0, "scores", "clamp"), (16, 17), (16, 17)),
        (Upsampling(3, 1, "scores", "clamp"), (6, 7), (2, 3)),
        (Upsampling(8, 0, "scores", "clamp"), (321, 322), (41, 42)),  # DeepLab's
        (Upsampling(8, -23.5, "scores", "zeros"), (1, 2), (4, 5)),  # FCN-8s'
        (Upsampling(8, 7, "scores", "clamp"), (1, 12), (1, 2)),
    ],
)
def test_cells_needed(kind: Upsampling, size: tuple[int, int], cells: tuple[int, int]) -> None:
    assert cells_needed(*size, kind) == cells


@pytest.mark.parametrize(
    "wrong",
    [
        *({"stride": stride} for stride in (0, 65, 8.0, True)),
        *({"anchor": anchor} for anchor in (-32.5, 7.5, math.nan, "1", True, 10**400)),
        {"interpolates": "logits"},
        {"border": ["zeros"]},
    ],
)
def test_an_upsampling_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"upsampling .*{re.escape(repr(*wrong.values()))}.*: give"):
        Upsampling(**{**asdict(GRID), **wrong})


@pytest.mark.parametrize("interpolates", ["probabilities", "scores"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 16])
def test_torchs_interpolation_has_these_anchors(stride: int, align_corners: bool, interpolates: Any) -> None:
    kind = Upsampling(stride, 0 if align_corners else (stride - 1) / 2, interpolates, "clamp")
    scores = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(stride))
    size = [(count - 1) * stride + 1 if align_corners else count * stride for count in (5, 6)]

    def theirs(cells: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(cells[None], size, mode="bilinear", align_corners=align_corners)[0]

    wide = scores.double()
    expected = theirs(wide.softmax(0)) if interpolates == "probabilities" else theirs(wide).softmax(0)
    check_against_exact(labels_from_scores(scores, *size, kind, confidence=True), expected.numpy())


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


@pytest.mark.parametrize("upsampling_kind", [GRID, DECONVOLUTION])
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


@pytest.mark.parametrize(("height", "width"), [(64, 80), (61, 75), (5, 3)])
@pytest.mark.parametrize(("stride", "crop"), [(8, 4), (16, 8), (32, 16), (8, 31), (16, 27), (32, 19)])
def test_deconvolutions_equal_torchs(stride: int, crop: int, height: int, width: int) -> None:
    """Caffe's bilinear kernels, as padded in the Cityscapes release, and as cropped in FCN-8s, FCN-16s and FCN-32s."""
    kind = Upsampling(stride, stride - 0.5 - crop, "scores", "zeros")
    scores = torch.randn(4, *cells_needed(height, width, kind), generator=torch.Generator().manual_seed(2))
    ramp = 1 - (torch.arange(2 * stride) + 0.5 - stride).abs().double() / stride
    weight = (ramp[:, None] * ramp).expand(4, 1, -1, -1)
    full = functional.conv_transpose2d(scores[None].double(), weight, stride=stride, groups=4)[0]
    expected = full[:, crop : crop + height, crop : crop + width].softmax(dim=0)
    check_against_exact(labels_from_scores(scores, height, width, kind, confidence=True), expected.numpy())


def test_too_small_a_score_map_is_refused() -> None:
    with pytest.raises(ValueError, match="3×3 cells"):
        labels_from_scores(torch.zeros(2, 2, 2), 17, 17)


def test_by_torch_no_more_than_a_band_exists_at_full_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    interpolate = upsampling._interpolate

    def recorded(cells: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        pixels = interpolate(cells, fractions)
        sizes.append(pixels.numel())
        return pixels

    monkeypatch.setattr(upsampling, "_interpolate", recorded)
    monkeypatch.setattr(upsampling, "_BAND_FLOATS", 3000)
    upsampling._by_torch(torch.zeros(2, 200, 5), 1590, 30, GRID, False, None)
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
