"""Tests of the contract of front ends, on a small family that pads by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn

from model.errors import CheckpointError
from model.files.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from model.kernels.preparation import prepare
from model.networks.dilated.front_end import DilatedFrontEnd
from model.networks.families import FAMILIES
from model.networks.front_end import FrontEnd, FrontEndWidths
from model.networks.network import ContextSpec, Network
from model.prediction.dense_prediction import network_input, predict, score_map
from model.prediction.geometry import Footprint, plan_windows
from model.prediction.upsampling import Upsampling
from model.prediction.window_input import WindowInput, preprocess
from tests.model.padded_family import PADDED, UPSAMPLING, PaddedFrontEnd, padded_network, padded_spec

CONTEXT = ContextSpec((1, 1, 2, 1), "layer")
SIZES = [(61, 83), (64, 40), (33, 34), (9, 150), (1, 97), (97, 1), (5, 3), (1, 1)]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, PADDED, PaddedFrontEnd)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole_scores(network: Network, image: NDArray[np.uint8]) -> torch.Tensor:
    """Return the scores of the front end on the whole image, without windows."""
    with torch.inference_mode():
        return network(preprocess(image, network.spec.mean_bgr)[None])[0]


@pytest.mark.parametrize("context", [None, CONTEXT])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_equal_the_whole_image(size: tuple[int, int], context: ContextSpec | None) -> None:
    network = padded_network(padded_spec(context=context))
    image = picture(*size)
    smallest = network.front_end.footprint.min_window
    whole = whole_scores(network, image)
    assert whole.shape[1:] == network.score_map_size(*size)
    expected = predict(network, image).labels
    for window in (smallest, smallest + 13, 1000):
        torch.testing.assert_close(score_map(network, image, max_window=window), whole, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(predict(network, image, max_window=window).labels, expected)


def test_windows_that_drop_less_than_the_halo_show_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a footprint that is too small is found."""
    network = padded_network(padded_spec())
    image = picture(61, 83)
    whole = whole_scores(network, image)
    network.front_end.footprint = replace(network.front_end.footprint, halo=4)
    assert (score_map(network, image, max_window=40) - whole).abs().max() > 1e-3


@settings(max_examples=60)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    stride=st.integers(1, 8),
    multiple=st.integers(1, 4),
    halo=st.integers(0, 50),
    room=st.integers(0, 100),
)
def test_padded_windows_lie_on_the_phase_and_hold_the_halo(
    rows: int, columns: int, stride: int, multiple: int, halo: int, room: int
) -> None:
    footprint = Footprint(stride, halo, stride * multiple, "padded")
    limit = footprint.min_window + room
    covered = np.zeros((rows, columns), int)
    size = (rows * stride, columns * stride)
    for window in plan_windows(rows, columns, limit, footprint):
        covered[window.cells] += 1
        places = zip(window.pixels(footprint), window.kept(footprint), window.cells, size, strict=True)
        for pixels, kept, cells, length in places:
            assert pixels.start % footprint.phase == 0 and min(pixels.stop, length) - pixels.start <= limit
            assert pixels.start + kept.start * stride == cells.start * stride
            assert pixels.start == 0 or cells.start * stride - pixels.start >= halo
            assert pixels.stop >= cells.stop * stride + halo
    assert (covered == 1).all()


def tiny_dilated() -> FrontEnd:
    """Return a dilated front end of one channel with positive weights: no change of a pixel cancels or is cut off."""
    front_end = DilatedFrontEnd(1, FrontEndWidths((1,) * 13, 1, 1), dropout=0.0).double()
    for parameter in front_end.parameters():
        nn.init.constant_(parameter, 0.05)
    return front_end


def tiny_padded() -> FrontEnd:
    front_end = PaddedFrontEnd(1, 1, 1, dilation=3).double()
    for parameter in front_end.parameters():
        nn.init.constant_(parameter, 0.05)
    return front_end


@pytest.mark.parametrize(("made", "side"), [(tiny_dilated, 60), (tiny_padded, 60)])
def test_the_halo_is_found_again_by_perturbing_pixels(made: type[FrontEnd], side: int) -> None:
    """The farthest pixel that changes a cell lies exactly a halo before or after the cell's pixels."""
    front_end = made().eval()
    footprint = front_end.footprint
    margin = footprint.crop_margin
    length = (side // footprint.stride) * footprint.stride + 2 * margin
    images = torch.rand(1, 3, length, length, dtype=torch.float64, requires_grad=True)
    scores = front_end(images)
    cell = scores.shape[2] // 2
    scores[0, 0, cell, cell].backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    # Both axes are alike, so the place of a pixel along one of them says everything.
    touched = images.grad[0].abs().sum(dim=0).nonzero()
    (first, also_first), (last, also_last) = touched.amin(dim=0).tolist(), touched.amax(dim=0).tolist()
    assert (first, last) == (also_first, also_last)
    start = margin + footprint.stride * cell
    assert max(start - first, last - (start + footprint.stride - 1)) == footprint.halo
    # A change of all other pixels changes nothing, exactly.
    changed = images.detach() + 100
    with torch.no_grad():
        inside = images.detach()[:, :, first : last + 1, first : last + 1]
        changed[:, :, first : last + 1, first : last + 1] = inside
        assert front_end(changed)[0, 0, cell, cell] == scores[0, 0, cell, cell]


@pytest.mark.parametrize(
    "upsampling",
    [
        UPSAMPLING,
        Upsampling(4, 1.5, "scores", "zeros"),
        Upsampling(4, 0.0, "probabilities", "clamp"),
        Upsampling(4, 3.0, "probabilities", "zeros"),
    ],
)
def test_any_upsampling_labels_any_size(upsampling: Upsampling) -> None:
    network = padded_network(padded_spec(upsampling))
    for size in SIZES:
        assert predict(network, picture(*size)).labels.shape == size


def test_an_image_that_fits_is_one_window() -> None:
    """Count the windows of images that just fit, and just do not: a margin needs no room at the image's border."""
    footprint = Footprint(8, 404, 32, "padded")
    assert len(plan_windows(125, 125, 1000, footprint)) == 1
    assert len(plan_windows(126, 125, 1000, footprint)) > 1
    with pytest.raises(ValueError, match="500 pixels holds no cell: use at least 864"):
        plan_windows(63, 10, 500, footprint)


def test_a_halo_must_cover_the_cells_before_the_image() -> None:
    with pytest.raises(ValueError, match="state a larger halo"):
        padded_network(padded_spec(Upsampling(4, -14.0, "scores", "zeros")))


def test_a_reference_window_belongs_to_the_dilated_family() -> None:
    with pytest.raises(ValueError, match="not of padded"):
        replace(padded_spec(), reference_window=(400, 400))


def test_images_of_one_batch_have_one_size() -> None:
    """Two images of equal score maps may differ in pixels, and then cannot be stacked."""
    network = padded_network(padded_spec())
    one, other = (network_input(network, picture(*size)) for size in ((8, 8), (7, 8)))
    assert one.cells == other.cells and one.batch_size != other.batch_size
    dilated = WindowInput(picture(8, 9), (2, 2), (0.0, 0.0, 0.0), torch.device("cpu"), DilatedFrontEnd.footprint)
    assert dilated.batch_size == (2, 2)


@pytest.mark.parametrize("context", [None, CONTEXT])
def test_files_are_of_format_2_and_come_back(context: ContextSpec | None) -> None:
    network = padded_network(padded_spec(context=context))
    data = to_bytes(network)
    metadata = read_metadata(data, METADATA_KEY)
    assert (metadata["format"], metadata["family"], metadata["family_options"]) == (2, PADDED, {"dilation": 3})
    again = from_bytes(data)
    assert again.spec == network.spec and to_bytes(again) == data
    assert again.front_end.footprint == network.front_end.footprint
    image = picture(30, 31)
    torch.testing.assert_close(score_map(again, image), score_map(network, image), rtol=0, atol=0)


def test_an_unknown_family_is_refused_with_those_known(monkeypatch: pytest.MonkeyPatch) -> None:
    data = to_bytes(padded_network(padded_spec()))
    monkeypatch.delitem(FAMILIES, PADDED)
    with pytest.raises(CheckpointError, match=r"family padded is unknown, this version reads dilated: upgrade"):
        from_bytes(data)


@pytest.mark.parametrize(
    "options",
    [{}, {"dilation": 3, "depth": 2}, {"dilation": "x"}, {"dilation": None}, {"dilation": 1e400}, {"y" * 10**6: 1}],
)
def test_options_that_the_family_does_not_know_are_refused(options: dict[str, object]) -> None:
    data = to_bytes(padded_network(padded_spec()))
    metadata = read_metadata(data, METADATA_KEY) | {"family_options": options}
    with pytest.raises(CheckpointError, match="family_options") as refused:
        from_bytes(save(load(data), {METADATA_KEY: json.dumps(metadata)}))
    assert len(str(refused.value)) < 400


def test_a_prepared_network_labels_alike() -> None:
    network = padded_network(padded_spec(context=CONTEXT))
    wide = PaddedFrontEnd(3, 128, 128, dilation=3).eval()
    network = Network(network.spec, wide, network.context).eval()
    prepared = prepare(network, 2**30)
    assert any(type(layer).__name__ == "TransformConvolution" for layer in prepared.modules())
    image = picture(120, 140)
    torch.testing.assert_close(score_map(prepared, image), score_map(network, image), rtol=1e-3, atol=1e-4)


def test_an_upsampling_of_another_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 8, but a padded network's score map has stride 4"):
        padded_network(padded_spec(Upsampling(8, 0.0, "scores", "clamp")))


def test_the_parts_name_every_layer_once() -> None:
    for front_end in (tiny_dilated(), tiny_padded()):
        named = [layer for layers in front_end.parts.values() for layer in layers]
        assert list(front_end.parts) == ["features", "head", "scores"]
        assert sorted(named) == sorted({name.split(".")[0] for name in front_end.state_dict()})
