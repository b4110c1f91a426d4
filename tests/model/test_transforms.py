"""Tests of convolution in a transform domain, against direct convolution in float64."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from model.kernels import convolutions
from model.kernels.convolutions import Transform, TransformConvolution, fourier, pays, winograd

TRANSFORMS = {"winograd": winograd(), "fourier 3x5": fourier((3, 5), 7), "fourier 12x8": fourier((12, 8), 7)}


def convolved(layer: nn.Conv2d, transform: Transform, maps: Tensor) -> Tensor:
    with mock.patch.object(convolutions, "pays", return_value=True), torch.inference_mode():
        result: Tensor = TransformConvolution(layer, transform)(maps)
    return result


def exact(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    return functional.conv2d(maps.double(), layer.weight.double(), bias, dilation=layer.dilation, padding=layer.padding)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_one_tile_is_a_correlation(name: str) -> None:
    transform = TRANSFORMS[name]
    torch.manual_seed(0)
    tile = torch.randn(*transform.tile)
    window = torch.randn(transform.taps, transform.taps)
    bins = (transform.forward @ tile.ravel()).view(-1, transform.parts)
    kernel = (transform.kernel @ window.ravel()).view(-1, transform.parts)
    products = bins * kernel
    if transform.parts == 2:
        products = torch.view_as_real(torch.view_as_complex(bins) * torch.view_as_complex(kernel))
    expected = functional.conv2d(tile[None, None].double(), window[None, None].double())[0, 0]
    outputs = (transform.inverse @ products.ravel()).view(transform.outputs)
    torch.testing.assert_close(outputs.double(), expected, atol=2e-5, rtol=0)


def test_number_of_products() -> None:
    assert winograd().bins == 36
    # 18 x 14 real pixels give as many numbers in the spectrum; four of its bins are real but counted as complex.
    assert fourier((12, 8), 7).bins == 18 * 14 // 2 + 2


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(TRANSFORMS)),
    images=st.integers(1, 2),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    dilation=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    bias=st.booleans(),
    block=st.integers(1, 300),
    channels_last=st.booleans(),
)
def test_any_shape_against_float64(
    name: str,
    images: int,
    inputs: int,
    outputs: int,
    dilation: int,
    rows: int,
    columns: int,
    bias: bool,
    block: int,
    channels_last: bool,
) -> None:
    transform = TRANSFORMS[name]
    torch.manual_seed(rows * 61 + columns)
    layer = nn.Conv2d(inputs, outputs, transform.taps, dilation=dilation, bias=bias).requires_grad_(False)
    lost = dilation * (transform.taps - 1)
    maps = torch.randn(images, inputs, rows + lost, columns + lost)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    with mock.patch.object(convolutions, "_BLOCK_TILES", {1: block, 2: block}):
        ours = convolved(layer, transform, maps)
    expected = exact(layer, maps)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours.double(), expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


def test_what_lies_beyond_the_map_does_not_matter() -> None:
    layer = nn.Conv2d(2, 2, 3).requires_grad_(False)
    whole = torch.full((1, 2, 30, 30), torch.nan).contiguous(memory_format=torch.channels_last)
    whole[..., :9, :9] = torch.randn(9, 9)
    assert bool(torch.isfinite(convolved(layer, winograd(), whole[..., :9, :9])).all())


def test_fourier_errs_less_than_the_direct_way() -> None:
    """The case is fc6's window over 128 channels."""
    torch.manual_seed(1)
    layer = nn.Conv2d(128, 16, 7, dilation=4).requires_grad_(False)
    maps = torch.rand(1, 128, 72, 56)
    expected = exact(layer, maps)
    ours = convolved(layer, fourier((12, 8), 7), maps)
    direct = layer(maps)
    assert (ours - expected).abs().max() < 2 * (direct - expected).abs().max()
    assert (ours - expected).abs().max() < 2e-6 * expected.abs().max()


def test_the_way_depends_on_channels_and_size() -> None:
    wide = nn.Conv2d(512, 512, 3)
    narrow = nn.Conv2d(64, 64, 3)
    assert pays(wide, winograd(), 80, 90) and not pays(narrow, winograd(), 700, 800)
    fc6 = nn.Conv2d(512, 4096, 7, dilation=4)
    assert pays(fc6, fourier((12, 8), 7), 46, 61) and not pays(fc6, fourier((12, 8), 7), 3, 3)
    # The dilation is so large that most of each tile lies outside the map.
    assert not pays(nn.Conv2d(512, 512, 3, dilation=16), winograd(), 66, 66)


def test_small_maps_go_the_direct_way() -> None:
    layer = nn.Conv2d(4, 4, 3).requires_grad_(False)
    maps = torch.randn(1, 4, 5, 5)
    assert torch.equal(TransformConvolution(layer, winograd())(maps), layer(maps))


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="3×3 taps"):
        TransformConvolution(nn.Conv2d(1, 1, 7), winograd())
    with pytest.raises(ValueError, match="does not fit"):
        TransformConvolution(nn.Conv2d(1, 1, 3, stride=2), winograd())
