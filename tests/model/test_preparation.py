"""Tests that a prepared network gives the same results."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from model.kernels.convolutions import TransformConvolution
from model.kernels.preparation import prepare
from model.networks.dilated.networks import dilation8
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.prediction.dense_prediction import predict, score_map

ROOM = 2**30
SPEC = NetworkSpec(
    tuple(f"class {n}" for n in range(6)), tuple((40 * n, 255 - 40 * n, 9) for n in range(6)), (110.0, 115.0, 120.0)
)


@pytest.fixture(scope="module")
def network() -> Network:
    """Return a network wide enough that every transform pays off, including the context module's."""
    torch.manual_seed(3)
    net = dilation8(SPEC, FrontEndWidths(conv=(16,) * 5 + (160,) * 8, fc6=256, fc7=64), large=True).eval()
    for layer in net.context.layers if net.context is not None else []:
        torch.nn.init.normal_(layer.weight, std=0.05)
    return net


def transformed(network: Network) -> set[str]:
    return {name.rpartition(".")[2] for name, part in network.named_modules() if isinstance(part, TransformConvolution)}


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(200, 260), (33, 400)])
def test_the_same_scores(network: Network, size: tuple[int, int]) -> None:
    image = picture(*size)
    plain = score_map(network, image)
    ours = score_map(prepare(network, ROOM), image)
    assert (ours - plain).abs().max() < 2e-5 * plain.abs().max()
    assert float((ours.argmax(0) == plain.argmax(0)).float().mean()) >= 0.9999


def test_the_same_labels_whatever_the_window(network: Network) -> None:
    image = picture(210, 330)
    prepared = prepare(network, ROOM)
    whole, tiled = (predict(prepared, image, max_window=window).labels for window in (1236, 500))
    assert (whole == tiled).mean() > 0.9999


def test_layers_are_chosen_by_their_channels(network: Network) -> None:
    names = transformed(prepare(network, ROOM))
    assert {"fc6", "conv3_3", "conv4_1", "conv5_3", "ctx_fc1"} <= names
    assert not names & {"conv1_1", "conv1_2", "fc7", "final", "ctx_conv1_1", "ctx_final"}
    assert transformed(network) == set()


def test_memory_is_capped(network: Network) -> None:
    def taken(memory: int) -> int:
        parts = prepare(network, memory).modules()
        return sum(4 * part.weights.numel() for part in parts if isinstance(part, TransformConvolution))

    assert taken(0) == 0
    whole = taken(ROOM)
    for memory in (whole, whole - 1, whole // 2, whole // 8):
        assert 0 < taken(memory) <= memory
    # If the memory does not suffice for the best tile of fc6, a smaller one is used.
    fc6 = prepare(network, whole // 2).front_end.fc6
    assert isinstance(fc6, TransformConvolution) and fc6.weights.shape[0] == 86


def test_other_weights_are_shared_and_the_network_stays_as_it_is(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = prepare(network, ROOM)
    fc6 = prepared.front_end.fc6
    assert isinstance(fc6, TransformConvolution)
    assert fc6.layer.weight.data_ptr() == network.front_end.fc6.weight.data_ptr()
    assert network.front_end.conv1_2.weight.is_contiguous()
    assert prepared.spec == network.spec and not prepared.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_compiled_network_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # This backend traces and splits the network like the default one, whose C++ compiler takes minutes of a core.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.manual_seed(3)
    narrow = dilation8(SPEC, FrontEndWidths.vgg16(1 / 32)).eval()
    compiled = prepare(narrow, 0, compile_kernels=True)
    image = picture(9, 30)
    expected = score_map(narrow, image)
    ours = score_map(compiled, image)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert compiled.front_end._compiled_call_impl is not None
