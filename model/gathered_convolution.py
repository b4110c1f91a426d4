"""A dilated convolution as one matrix product: what each output sees is gathered side by side first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["convolve_gathered"]


def convolve_gathered(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """What `layer(maps)` is, for a layer without padding or stride: (N, F, H, W) → (N, C, H - d(k - 1), W - d(k - 1)).

    The gathered values take k·k times the memory of the output's share of `maps`. Channels lie last in the result.
    """
    dilation, side = layer.dilation[0], layer.kernel_size[0]
    rows, columns = (length - dilation * (side - 1) for length in maps.shape[2:])
    vectors = maps.permute(0, 2, 3, 1)
    taps = [
        vectors[:, down : down + rows, right : right + columns]
        for down in range(0, side * dilation, dilation)
        for right in range(0, side * dilation, dilation)
    ]
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
    return functional.linear(torch.cat(taps, dim=3), weight, layer.bias).permute(0, 3, 1, 2)
