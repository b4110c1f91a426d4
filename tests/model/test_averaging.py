"""Tests of averages over views, against the definition in float64 and the last step of a single view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.networks.network import NetworkSpec
from model.prediction import averaging, upsampling
from model.prediction.averaging import average_labels
from model.prediction.dense_prediction import predict, score_map
from model.prediction.upsampling import DECONVOLUTION, GRID, Upsampling, cells_needed
from model.prediction.views import View, WorkingSize, resize_image, views
from tests.model import naive
from tests.model.test_dense_prediction import image, network
from tests.model.test_upsampling import upsamplings

KINDS: tuple[Upsampling, ...] = (GRID, DECONVOLUTION)


def spec(kind: Upsampling, classes: int = 3) -> NetworkSpec:
    names = tuple(f"class {each}" for each in range(classes))
    return NetworkSpec(names, ((0, 0, 0),) * classes, (0.0, 0.0, 0.0), upsampling=kind)


def random_scores(view: View, size: tuple[int, int], kind: Upsampling, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(3, *cells_needed(*view.size(*size), kind), generator=generator)


def naive_probabilities(view: View, scores: torch.Tensor, size: tuple[int, int], kind: Upsampling) -> np.ndarray:
    """Return probabilities (C, H, W) of the image in float64."""
    rows, columns = (
        ((np.arange(pixels) + 0.5) * seen / pixels - 0.5).clip(0, seen - 1)
        for seen, pixels in zip(view.size(*size), size, strict=True)
    )
    if view.mirrored:
        columns = view.size(*size)[1] - 1 - columns
    return naive.upsample(scores.double().numpy(), rows, columns, kind)


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(st.sampled_from([0.25, 0.6, 0.75, 1.0, 1.25, 2.0]), min_size=1, max_size=3, unique=True),
    st.booleans(),
    st.sampled_from(KINDS) | upsamplings(),
    st.sampled_from([None, WorkingSize(long_side=19), WorkingSize(size=(17, 40))]),
)
def test_the_mean_is_the_definition(
    size: tuple[int, int], scales: list[float], flip: bool, kind: Upsampling, resize: WorkingSize | None
) -> None:
    chosen = views(scales, flip=flip, resize=resize)
    scores = [random_scores(view, size, kind, seed) for seed, view in enumerate(chosen)]
    target = np.random.default_rng(0).integers(0, 3, size, dtype=np.uint8)
    result = average_labels(spec(kind), chosen, scores, size, confidence=True, target=target)
    expected = np.mean(
        [naive_probabilities(view, each, size, kind) for view, each in zip(chosen, scores, strict=True)], axis=0
    )
    winners = np.take_along_axis(expected, result.labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(winners, expected.max(axis=0), atol=2e-6)
    assert result.mean_confidence == pytest.approx(expected.max(axis=0).mean(), abs=2e-6)
    assert result.mean_entropy == pytest.approx(
        -(expected * np.log(np.maximum(expected, 1e-300))).sum(axis=0).mean(), abs=1e-5
    )
    assert result.confidence is not None
    assert np.abs(result.confidence - 255 * expected.max(axis=0)).max() <= 0.51
    assert result.confusion is not None and result.confusion.sum() == target.size
    assert result.confusion.trace() == (result.labels == target).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_one_plain_view_is_the_last_step_to_the_bit(kind: Upsampling) -> None:
    size = (61, 75)
    scores = random_scores(View(), size, kind, 1)
    ours = average_labels(spec(kind), (View(),), [scores], size, confidence=True)
    theirs = upsampling._by_torch(scores, *size, kind, True, None)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.confidence, theirs.winning)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = views([0.75, 1.0], flip=True)
    size = (40, 33)
    scores = [random_scores(view, size, GRID, seed) for seed, view in enumerate(chosen)]
    whole = average_labels(spec(GRID), chosen, scores, size)
    monkeypatch.setattr(averaging, "_HOST_FLOATS", 1)
    by_row = average_labels(spec(GRID), chosen, scores, size)
    np.testing.assert_array_equal(whole.labels, by_row.labels)
    assert whole.mean_entropy == pytest.approx(by_row.mean_entropy)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_the_prediction_of_a_mirror_image_is_the_mirrored_prediction(kind: Upsampling) -> None:
    net = network(upsampling=kind)
    picture = image(50, 70)
    both = views([1.0], flip=True)
    ours = predict(net, picture, views=both).labels
    mirrored = predict(net, np.ascontiguousarray(picture[:, ::-1]), views=both).labels
    assert (ours == mirrored[:, ::-1]).mean() > 0.999
    assert (predict(net, picture).labels == ours).mean() < 0.999


def test_windows_change_nothing() -> None:
    net = network()
    picture = image(50, 90)
    chosen = views([0.75, 1.0], flip=True)
    tiled = predict(net, picture, views=chosen, max_window=388).labels
    assert (tiled == predict(net, picture, views=chosen, max_window=2000).labels).mean() > 0.999


def test_a_view_is_what_its_name_says() -> None:
    picture = image(37, 53)
    for view in (View(0.5), View(1.3, mirrored=True)):
        height, width = view.size(37, 53)
        peer = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
        peer = peer[:, ::-1] if view.mirrored else peer
        assert np.abs(view.of(picture).astype(int) - peer).max() <= 1
    np.testing.assert_array_equal(View(mirrored=True).of(picture), picture[:, ::-1])
    assert View(0.25).size(1, 9) == (1, 2)


def test_the_network_sees_each_view() -> None:
    """The expected labels average the maps of resized and mirrored pictures explicitly."""
    net = network()
    picture = image(30, 44)
    chosen = (View(0.5), View(1.0, mirrored=True))
    scores = [score_map(net, view.of(picture)) for view in chosen]
    expected = average_labels(net.spec, chosen, scores, (30, 44)).labels
    np.testing.assert_array_equal(predict(net, picture, views=chosen).labels, expected)


@pytest.mark.parametrize(
    ("working", "size"),
    [
        (WorkingSize(long_side=24), (14, 24)),
        (WorkingSize(long_side=90), (52, 90)),
        (WorkingSize(size=(33, 21)), (33, 21)),
    ],
)
def test_a_network_predicts_at_its_working_size(working: WorkingSize, size: tuple[int, int]) -> None:
    """The expected labels interpolate the resized picture's map at the pixels of the original image."""
    net = network()
    picture = image(30, 52)
    net.spec = replace(net.spec, resize=working)
    assert working.of(30, 52) == size
    view = View(resize=working)
    assert view.of(picture).shape == (*size, 3)
    found = predict(net, picture)
    expected = naive_probabilities(view, score_map(net, resize_image(picture, size)), (30, 52), GRID)
    winners = np.take_along_axis(expected, found.labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(winners, expected.max(axis=0), atol=1e-5)
    assert found.labels.shape == (30, 52)


def test_the_images_own_size_as_working_size_changes_nothing() -> None:
    net = network()
    picture = image(30, 52)
    plain = predict(net, picture)
    net.spec = replace(net.spec, resize=WorkingSize(size=(30, 52)))
    assert (predict(net, picture).labels == plain.labels).mean() > 0.999
