"""Independent implementation of the network in loops and float64: slow, short, and simple to check."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.prediction.upsampling import Upsampling

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


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def upsample(scores: Array, rows: Array, columns: Array, upsampling: Upsampling) -> Array:
    """Return probabilities (C, H, W) at pixels of the given coordinates, from scores (C, cells down, cells across)."""
    early = upsampling.interpolates == "probabilities"
    down = _weights(rows, scores.shape[1], upsampling)
    across = _weights(columns, scores.shape[2], upsampling)
    pixels = np.einsum("cij,yi,xj->cyx", softmax(scores) if early else scores, down, across)
    return pixels if early else softmax(pixels)


def _weights(pixels: Array, cells: int, upsampling: Upsampling) -> Array:
    """Return weights (pixels, cells): 1 on a cell's center, falling to 0 at the centers of its neighbors."""
    places = (pixels - upsampling.anchor) / upsampling.stride
    if upsampling.border == "clamp":
        places = places.clip(0, cells - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
