"""Tests of whole-image and tiled prediction, against the naive network and the released networks' tiling rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import PredictionError
from model.networks.dilated.geometry import FOOTPRINT, MARGIN, score_map_size
from model.networks.dilated.networks import dilation8, dilation10, front_end_only
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.prediction.dense_prediction import Geometry, predict, score_map
from model.prediction.geometry import plan_windows, reflect_indices
from model.prediction.reference_geometry import tiled_scores
from model.prediction.upsampling import GRID
from model.prediction.window_input import WindowInput, preprocess, reflect_on_device
from pipeline.results.statistics.scores import confusion_matrix
from tests.model import naive

WIDTHS = FrontEndWidths((2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4), 5, 5)
SPEC = NetworkSpec(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)), (10.0, 20.0, 30.0))


def network(build=dilation8, **changes: object) -> Network:  # type: ignore[no-untyped-def]
    torch.manual_seed(5)
    made: Network = build(replace(SPEC, **changes), WIDTHS)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4 if parameter.ndim == 4 else 0.1)
    return made.eval()


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@settings(max_examples=8)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([380, 388, 412, 460]), st.integers(0, 99))
def test_windows_change_nothing(height: int, width: int, window: int, seed: int) -> None:
    net = network()
    picture = image(height, width, seed)
    whole = score_map(net, picture, max_window=2000)
    tiled = score_map(net, picture, max_window=window)
    assert relative(tiled, whole) < 1e-5
    assert (
        predict(net, picture, max_window=window).labels == predict(net, picture, max_window=2000).labels
    ).mean() > 0.999


def test_whole_prediction_equals_the_naive_one() -> None:
    net = network()
    picture = image(21, 13)
    weights = {name: tensor.double().numpy() for name, tensor in net.front_end.state_dict().items()}
    after = {name: tensor.double().numpy() for name, tensor in net.context.state_dict().items()}
    rows = (21 - 1) // 8 + 2
    columns = (13 - 1) // 8 + 2
    # numpy's reflection is the definition: it reflects repeatedly where the margin is larger than the image.
    below = rows * 8 + MARGIN - 21
    right = columns * 8 + MARGIN - 13
    padded = np.pad(picture, ((MARGIN, below), (MARGIN, right), (0, 0)), mode="reflect").astype(np.float64)
    bgr = padded[:, :, ::-1].transpose(2, 0, 1) - np.array([10.0, 20.0, 30.0])[:, None, None]
    scores = naive.context(
        naive.front_end(bgr, weights), after, list(net.context.names), list(net.context.dilations), "layer"
    )
    assert relative(score_map(net, picture), torch.from_numpy(scores).float()) < 1e-4
    expected = naive.upsample(scores, np.arange(21), np.arange(13), GRID)
    result = predict(net, picture)
    assert (result.labels == expected.argmax(axis=0)).mean() > 0.99
    assert result.mean_confidence == pytest.approx(expected.max(axis=0).mean(), abs=1e-3)


def test_preprocessing_swaps_channels_and_subtracts_the_mean() -> None:
    red = np.zeros((1, 1, 3), np.uint8)
    red[0, 0, 0] = 200
    assert preprocess(red, (1.0, 2.0, 3.0)).flatten().tolist() == [-1.0, -2.0, 197.0]


@pytest.mark.parametrize("size", [(1, 1), (40, 300), (250, 90)])
def test_windows_of_an_image_are_cut_from_its_reflection(size: tuple[int, int]) -> None:
    picture = image(*size)
    mean = (10.0, 20.0, 30.0)
    cpu = torch.device("cpu")
    cells = score_map_size(*size)
    before = [reflect_indices(n, MARGIN, 8 * count + MARGIN - n) for n, count in zip(size, cells, strict=True)]
    reflected = picture[before[0]][:, before[1], ::-1].astype(np.float32) - np.array(mean, np.float32)
    whole = torch.from_numpy(reflected).permute(2, 0, 1)
    source = WindowInput(picture, cells, mean, cpu, FOOTPRINT)
    for window in plan_windows(*cells, 444, FOOTPRINT):
        assert torch.equal(source.batch(window)[0], whole[:, *window.pixels(FOOTPRINT)])
    assert torch.equal(reflect_on_device(picture, *before, mean, cpu), whole.permute(1, 2, 0))


@pytest.mark.parametrize("build", [front_end_only, dilation10])
def test_every_size_gets_a_label_for_every_pixel(build) -> None:  # type: ignore[no-untyped-def]
    for size in ((1, 1), (1, 30), (187, 3), (40, 41)):
        assert predict(network(build), image(*size)).labels.shape == size


def test_memory_is_bounded_by_the_window() -> None:
    net = network()
    seen = []
    net.front_end.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    predict(net, image(150, 700), max_window=444)
    assert max(max(shape[2:]) for shape in seen) <= 444
    assert len(seen) > 10


def test_scores_that_are_not_finite_are_an_error() -> None:
    net = network()
    net.front_end.final.bias.data[0] = float("nan")
    with pytest.raises(PredictionError, match="NaN"):
        predict(net, image(9, 9))


def test_reference_geometry_needs_a_window() -> None:
    with pytest.raises(ValueError, match="--geometry image"):
        predict(network(), image(9, 9), geometry="reference")


def test_reference_tiles_by_hand() -> None:
    """Two tiles of 16 pixels side by side are put together as predict.py does, with numpy's own reflection."""
    net = network(reference_window=(388, 388))
    picture = image(16, 24)
    margin = np.pad(picture, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")
    tiles = [margin[:388, :388], np.pad(margin[:388, 16:], ((0, 0), (0, 8), (0, 0)), mode="reflect")]
    with torch.inference_mode():
        expected = torch.cat([net(preprocess(tile, SPEC.mean_bgr)[None])[0] for tile in tiles], dim=2)
    assert relative(tiled_scores(net, preprocess(picture, SPEC.mean_bgr)), expected) < 1e-5


def test_reference_equals_whole_image_within_one_tile_and_no_context() -> None:
    net = network(front_end_only, reference_window=(452, 468))
    picture = image(70, 90)
    whole = predict(net, picture)
    tiled = predict(net, picture, geometry="reference")
    assert (whole.labels == tiled.labels).mean() > 0.999


def test_reference_pads_the_context_at_tile_edges() -> None:
    net = network(reference_window=(420, 420))
    picture = image(48, 96)
    whole = score_map(net, picture)[:, :6, :12]
    assert relative(tiled_scores(net, preprocess(picture, SPEC.mean_bgr))[:, :6, :12], whole) > 1e-3


@pytest.mark.parametrize("size", [(48, 96), (49, 97), (5, 100)])
def test_reference_map_ending_on_a_tile_is_clamped(size: tuple[int, int]) -> None:
    assert predict(network(reference_window=(420, 420)), image(*size), geometry="reference").labels.shape == size


def test_reference_tiles_of_a_deconvolution_see_nothing_beyond_their_own_cells() -> None:
    """Every tile's network includes the transposed convolution and its zero padding, as in Cityscapes' release."""
    net = network(dilation10, reference_window=(388, 396))
    picture = image(40, 61)
    result = predict(net, picture, geometry="reference", confidence=True)
    inputs = preprocess(picture, net.spec.mean_bgr)
    scores = tiled_scores(net, inputs)
    ramp = 1 - (torch.arange(16) - 7.5).abs() / 8
    kernel = (ramp[:, None] * ramp)[None, None]
    expected = torch.zeros(3, scores.shape[1] * 8, scores.shape[2] * 8)
    for top in range(0, scores.shape[1], 2):
        for left in range(0, scores.shape[2], 3):
            tile = scores[:, top : top + 2, left : left + 3]
            pixels = torch.nn.functional.conv_transpose2d(tile[:, None], kernel, stride=8, padding=4)[:, 0]
            expected[:, top * 8 : top * 8 + 16, left * 8 : left * 8 + 24] = pixels
    probabilities = expected[:, :40, :61].softmax(dim=0)
    assert (torch.from_numpy(result.labels) == probabilities.argmax(dim=0)).float().mean() > 0.999
    assert result.mean_confidence == pytest.approx(float(probabilities.amax(dim=0).mean()), rel=1e-4)
    assert result.mean_entropy == pytest.approx(float(torch.special.entr(probabilities).sum(0).mean()), rel=1e-3)


@pytest.mark.parametrize("build", [dilation8, dilation10])
@pytest.mark.parametrize("geometry", ["image", "reference"])
def test_labels_are_counted_against_the_target(build, geometry: Geometry) -> None:  # type: ignore[no-untyped-def]
    net = network(build, reference_window=(388, 396))
    picture = image(40, 61)
    target = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (40, 61))
    result = predict(net, picture, geometry=geometry, target=target)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(target, result.labels, 3))
    np.testing.assert_array_equal(result.class_pixels, np.bincount(result.labels.ravel(), minlength=3))
    assert predict(net, picture, geometry=geometry).confusion is None
    with pytest.raises(ValueError, match="must be"):
        predict(net, picture, geometry=geometry, target=np.zeros((41, 61), np.uint8))
    with pytest.raises(ValueError, match="not below 3"):
        predict(net, picture, geometry=geometry, target=np.full((40, 61), 3, np.uint8))
