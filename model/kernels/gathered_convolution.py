"""Dilated convolution as one matrix product over gathered inputs (im2col)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["im2col_conv2d"]


def im2col_conv2d(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """Compute `layer(maps)` for a layer without padding or stride.

    The gathered values take k·k times the memory of the part of `maps` that has the size of the output.

    Args:
        layer: Convolution with a k x k kernel and dilation d.
        maps: Input, (N, F, H, W).

    Returns:
        Output, (N, C, H - d(k - 1), W - d(k - 1)), channels last in memory.
    """
    dilation = layer.dilation[0]
    side = layer.kernel_size[0]
    rows, columns = (length - dilation * (side - 1) for length in maps.shape[2:])
    vectors = maps.permute(0, 2, 3, 1)
    taps = [
        vectors[:, down : down + rows, right : right + columns]
        for down in range(0, side * dilation, dilation)
        for right in range(0, side * dilation, dilation)
    ]
    # The k·k shifted views side by side: (N, rows, columns, k·k·F); the weight becomes (C, k·k·F).
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
    return functional.linear(torch.cat(taps, dim=3), weight, layer.bias).permute(0, 3, 1, 2)
