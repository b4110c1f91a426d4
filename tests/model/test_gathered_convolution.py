"""Tests of the im2col convolution, against torch's convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.kernels.convolutions import im2col_conv2d
from model.networks.dilated.front_end import DilatedFrontEnd
from model.networks.front_end import FrontEndWidths


@pytest.mark.parametrize(("side", "dilation", "height", "width"), [(7, 4, 41, 30), (3, 2, 9, 12), (3, 1, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_the_convolutions(
    side: int, dilation: int, height: int, width: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 6, side, dilation=dilation).double().to(memory_format=layout)
    maps = torch.randn(2, 5, height, width, dtype=torch.double).contiguous(memory_format=layout)
    outcomes = []
    for convolve in (lambda inputs: layer(inputs), lambda inputs: im2col_conv2d(layer, inputs)):
        inputs = maps.clone().requires_grad_()
        layer.zero_grad()
        scores = convolve(inputs)
        (scores * torch.linspace(-1, 1, scores.numel()).view(scores.shape)).sum().backward()
        outcomes.append([scores.detach(), inputs.grad, layer.weight.grad.clone(), layer.bias.grad.clone()])
    for ours, torchs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_front_end_on_a_gpu_scores_as_on_a_cpu() -> None:
    torch.manual_seed(0)
    network = DilatedFrontEnd(4, FrontEndWidths.vgg16(1 / 8)).eval()
    images = torch.randn(1, 3, 420, 404) * 60
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = network(images)
        scores = network.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)
