"""Independent implementation of the network in loops and float64: slow, short, and simple to check."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(maps: Array, weight: Array, bias: Array, dilation: int = 1) -> Array:
    """Convolve (C, H, W) to (O, h, w) without padding: the paper's eq. 2, one tap at a time."""
    outputs, _, size, _ = weight.shape
    reach = (size - 1) * dilation
    height = maps.shape[1] - reach
    width = maps.shape[2] - reach
    result = np.zeros((outputs, height, width)) + bias[:, None, None]
    for row in range(size):
        for column in range(size):
            top = row * dilation
            left = column * dilation
            patch = maps[:, top : top + height, left : left + width]
            result += np.einsum("oc,chw->ohw", weight[:, :, row, column], patch)
    return result


def pool(maps: Array) -> Array:
    """Take 2x2 maxima at stride 2, with sizes rounded up as in Caffe."""
    channels, height, width = maps.shape
    result = np.full((channels, math.ceil(height / 2), math.ceil(width / 2)), -np.inf)
    for row in range(height):
        for column in range(width):
            cell = result[:, row // 2, column // 2]
            result[:, row // 2, column // 2] = np.maximum(cell, maps[:, row, column])
    return result


def front_end(image: Array, weights: dict[str, Array]) -> Array:
    """Return the scores of a preprocessed image that has its margin."""
    maps = image
    for block, layers in enumerate((2, 2, 3, 3, 3), start=1):
        for layer in range(1, layers + 1):
            name = f"conv{block}_{layer}"
            maps = relu(convolve(maps, weights[f"{name}.weight"], weights[f"{name}.bias"], 2 if block == 5 else 1))
        if block <= 3:
            maps = pool(maps)
    maps = relu(convolve(maps, weights["fc6.weight"], weights["fc6.bias"], 4))
    maps = relu(convolve(maps, weights["fc7.weight"], weights["fc7.bias"]))
    return convolve(maps, weights["final.weight"], weights["final.bias"])


def context(scores: Array, weights: dict[str, Array], names: list[str], dilations: list[int], padding: str) -> Array:
    """Apply the context module, layer by layer."""
    maps = pad(scores, sum(dilations)) if padding == "input" else scores
    for name, dilation in zip(names, dilations, strict=True):
        maps = pad(maps, dilation) if padding == "layer" else maps
        maps = relu(convolve(maps, weights[f"{name}.weight"], weights[f"{name}.bias"], dilation))
    return convolve(maps, weights["ctx_final.weight"], weights["ctx_final.bias"])


def relu(maps: Array) -> Array:
    return np.maximum(maps, 0)


def pad(maps: Array, cells: int) -> Array:
    return np.pad(maps, ((0, 0), (cells, cells), (cells, cells)))


def upsample(probabilities: Array, height: int, width: int) -> Array:
    """Upsample (C, rows, columns) to (C, H, W), one pixel at a time; pixel (y, x) is between cells at y/8 and x/8."""
    result = np.zeros((probabilities.shape[0], height, width))
    for y in range(height):
        for x in range(width):
            row = y // 8
            column = x // 8
            down = y % 8 / 8
            right = x % 8 / 8
            four = probabilities[:, row : row + 2, column : column + 2]
            result[:, y, x] = (four[:, 0, 0] * (1 - right) + four[:, 0, 1] * right) * (1 - down) + (
                four[:, 1, 0] * (1 - right) + four[:, 1, 1] * right
            ) * down
    return result
