"""Convolutions for CPUs: im2col for dilated filters, and Winograd's minimal filtering by tiles for 3×3 filters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Transform", "TransformConvolution", "fits", "fourier", "im2col_conv2d", "pays", "winograd"]


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


# Finite interpolation points of the Winograd transform.
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


@dataclass(frozen=True)
class Transform:
    """Matrices of a transform for one size of tile, float32.

    Attributes:
        outputs: Rows and columns of outputs of a tile, m.
        taps: Rows of the window, and its columns, r.
        forward: Matrix from pixels to bins, (bins · parts, tile pixels).
        kernel: Matrix from taps to bins, (bins · parts, taps²).
        inverse: Matrix from bins to outputs, (outputs, bins · parts).
        parts: Numbers per bin: 1 for real bins; 2 for complex bins, real then imaginary part.
    """

    outputs: tuple[int, int]
    taps: int
    forward: Tensor
    kernel: Tensor
    inverse: Tensor
    parts: int

    @property
    def bins(self) -> int:
        """Number of bins, that is, of products per tile and pair of channels."""
        return len(self.forward) // self.parts

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of input pixels of a tile, n."""
        rows, columns = self.outputs
        return rows + self.taps - 1, columns + self.taps - 1


def winograd() -> Transform:
    """Return the Winograd transform F(4x4, 3x3): 4 x 4 outputs of a 3 x 3 window."""
    outputs = 4
    taps = 3
    size = outputs + taps - 1
    interpolation = np.linalg.inv(_evaluation(size))
    # Each matrix is the Kronecker product of its one-dimensional matrix for rows and for columns.
    axes = interpolation.T, _evaluation(taps), _evaluation(outputs).T
    forward, kernel, inverse = (_matrix(np.kron(axis, axis)) for axis in axes)
    return Transform((outputs, outputs), taps, forward, kernel, inverse, parts=1)


def fourier(outputs: tuple[int, int], taps: int) -> Transform:
    """Return the discrete Fourier transform for tiles of `outputs` (rows, columns) and windows of `taps` x `taps`."""
    rows, columns = (length + taps - 1 for length in outputs)
    bins = [(u, v) for u in range(rows) for v in range(columns) if (u, v) <= (-u % rows, -v % columns)]
    # Bins that are their own conjugate count once, the others twice.
    weights = [(1 if (u, v) == (-u % rows, -v % columns) else 2) / (rows * columns) for u, v in bins]

    def waves(height: int, width: int, sign: int) -> NDArray[np.float64]:
        """Return cosines and signed sines of each bin at each pixel, (2 · bins, height · width)."""
        down, right = np.mgrid[:height, :width]
        angles = [2 * np.pi * (u * down / rows + v * right / columns).ravel() for u, v in bins]
        return np.stack([[np.cos(angle), sign * np.sin(angle)] for angle in angles]).reshape(2 * len(bins), -1)

    inverse = waves(*outputs, -1) * np.repeat(weights, 2)[:, None]
    # The kernel has the opposite sign, because a correlation multiplies by the conjugate.
    matrices = waves(rows, columns, -1), waves(taps, taps, 1), inverse.T
    forward, kernel, back = (_matrix(values) for values in matrices)
    return Transform(outputs, taps, forward, kernel, back, parts=2)


def _evaluation(length: int) -> NDArray[np.float64]:
    """Return the matrix from a polynomial's `length` coefficients to its values at the points.

    The last row is the point at infinity and gives the leading coefficient.
    """
    finite = np.vander(_POINTS, length, increasing=True)
    return np.vstack([finite, np.eye(length)[-1]])


def _matrix(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# Tiles at a time, by parts of a bin: few enough that intermediate results stay in the cache (1, real bins) or small
# (2, complex bins).
_BLOCK_TILES = {1: 512, 2: 64}
# Cost of moving a float and of reading a byte of weights, in floating-point operations of a matrix product: two cores
# with AVX2 do 220e9 operations, move 1.6e9 floats and read 9e9 bytes per second. Only the ratios matter, and they vary
# little.
_MOVE = 140
_READ = 24


class TransformConvolution(nn.Module):
    """Convolution that uses a transform where that takes fewer operations for the size of the map.

    Only shapes decide between the transform and the layer, so an image gives the same bits in every process.

    Args:
        layer: Convolution that `fits`, in float32 on the CPU; it still computes small maps.
        transform: Transform for the layer's number of taps.

    Attributes:
        weights: Weights of the layer, transformed once, (bins, parts · F, C) float32.

    Raises:
        ValueError: If the transform does not fit the layer.
    """

    def __init__(self, layer: nn.Conv2d, transform: Transform) -> None:
        super().__init__()
        outputs, inputs, taps = layer.weight.shape[:3]
        if taps != transform.taps or not fits(layer):
            raise ValueError(f"a transform for {transform.taps}×{transform.taps} taps does not fit {layer}")
        self.layer = layer
        self._transform = transform
        self._dilation = layer.dilation[0]
        self._padding = int(layer.padding[0])
        # (C, F, r, r) -> (r·r, F·C) -> (bins, parts · F, C).
        by_tap = layer.weight.detach().permute(2, 3, 1, 0).reshape(taps * taps, -1)
        self.weights = (transform.kernel @ by_tap).view(transform.bins, transform.parts * inputs, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, C, H - d(r - 1) + 2p, W - d(r - 1) + 2p) for maps (N, F, H, W); channels are last in memory."""
        lost = self._dilation * (self._transform.taps - 1) - 2 * self._padding
        rows = maps.shape[2] - lost
        columns = maps.shape[3] - lost
        if not pays(self.layer, self._transform, rows, columns):
            result: Tensor = self.layer(maps)
            return result
        return self._by_tiles(functional.pad(maps, [self._padding] * 4) if self._padding else maps, rows, columns)

    def _by_tiles(self, maps: Tensor, rows: int, columns: int) -> Tensor:
        """Compute the output, (N, C, rows, columns), block by block of tiles."""
        step, (high, wide) = self._dilation, self._transform.outputs
        down = _tiles(rows, step * high)
        across = _tiles(columns, step * wide)
        # Pad to whole tiles with zeros, not arbitrary memory: through rounding, padding affects outputs that are kept.
        spare = (0, 0, 0, across * step * wide - columns, 0, down * step * high - rows)
        padded = functional.pad(maps.permute(0, 2, 3, 1), spare).contiguous()
        whole = padded.new_empty(len(maps), down * high * step, across * wide * step, self.weights.shape[2])
        sources = self._tiles_of(padded, down, across)
        targets = self._places(whole, down, across)
        for block in _blocks(down, across, len(maps) * step * step, _BLOCK_TILES[self._transform.parts]):
            targets[block] = self._convolve(sources[block]).view(targets[block].shape)
        return whole[:, :rows, :columns].permute(0, 3, 1, 2)

    def _tiles_of(self, padded: Tensor, down: int, across: int) -> Tensor:
        """Return a view of the overlapping tiles of `padded`, (N, H, W, F), without a copy.

        Returns:
            Tiles, (tile rows, tile columns, N, d, d, tiles down, tiles across, F); the two d are row and column of
            the sub-grid.
        """
        step, (high, wide), (rows, columns) = self._dilation, self._transform.outputs, self._transform.tile
        image, row, column, _ = padded.stride()
        sizes = (rows, columns, len(padded), step, step, down, across, padded.shape[3])
        steps = (row * step, column * step, image, row, column, row * step * high, column * step * wide, 1)
        return padded.as_strided(sizes, steps)

    def _places(self, whole: Tensor, down: int, across: int) -> Tensor:
        """Return a view of the output `whole`, (N, H, W, C), in which tiles have the order of `_tiles_of`."""
        # (N, tiles down, rows, d, tiles across, columns, d, C) -> (rows, columns, N, d, d, tiles down, across, C)
        step, (high, wide) = self._dilation, self._transform.outputs
        shape = (len(whole), down, high, step, across, wide, step, whole.shape[3])
        return whole.view(shape).permute(2, 5, 0, 3, 6, 1, 4, 7)

    def _convolve(self, block: Tensor) -> Tensor:
        """Return the outputs, (outputs, tiles, C), of a block of tiles."""
        # Transform: (tile pixels, tiles · F) -> (bins, parts, tiles, F).
        transform = self._transform
        count = math.prod(block.shape[2:7])
        inputs = block.shape[7]
        bins = transform.forward @ block.reshape(-1, count * inputs)
        bins = bins.view(transform.bins, transform.parts, count, inputs)
        # One matrix product per bin, then the inverse transform: (bins · parts, tiles · C) -> (outputs, tiles, C).
        left = bins[:, 0] if transform.parts == 1 else _complex_rows(bins)
        products = torch.bmm(left, self.weights).view(transform.bins * transform.parts, -1)
        outputs = (transform.inverse @ products).view(-1, count, self.weights.shape[2])
        return outputs if self.layer.bias is None else outputs.add_(self.layer.bias)


def _tiles(length: int, outputs: int) -> int:
    """Return the number of tiles of `outputs` outputs that cover `length` outputs along an axis."""
    return -(-length // outputs)


def fits(layer: nn.Conv2d) -> bool:
    """Return whether a transform can replace a layer: no stride, no groups, equal dilations, equal zero padding."""
    return (
        layer.stride == (1, 1)
        and layer.groups == 1
        and len({layer.kernel_size, layer.kernel_size[::-1]}) == 1
        and len({*layer.dilation}) == 1
        and not isinstance(layer.padding, str)
        and len({*layer.padding}) == 1
        and layer.padding_mode == "zeros"
    )


def pays(layer: nn.Conv2d, transform: Transform, rows: int, columns: int) -> bool:
    """Return whether the transform takes clearly fewer operations than the layer for `rows` x `columns` outputs."""
    direct = 2 * layer.weight.numel() * rows * columns
    return _transformed_cost(layer, transform, rows, columns) < 0.9 * direct


def _transformed_cost(layer: nn.Conv2d, transform: Transform, rows: int, columns: int) -> float:
    """Return the cost of the transform for `rows` x `columns` outputs, in operations, memory traffic included."""
    outputs, inputs = layer.weight.shape[:2]
    step, (high, wide) = layer.dilation[0], transform.outputs
    count = step * step * _tiles(rows, step * high) * _tiles(columns, step * wide)
    # Per tile: forward transform, inverse transform, and products. Per block of tiles: one reading of the weights.
    numbers = len(transform.forward)
    seen = math.prod(transform.tile)
    made = high * wide
    there = inputs * (2 * numbers * seen + _MOVE * (numbers + seen))
    back = outputs * (2 * numbers * made + _MOVE * (numbers + made))
    products = 2 * numbers * transform.parts * inputs * outputs
    readings = -(-count // _BLOCK_TILES[transform.parts])
    return count * (there + products + back) + readings * _READ * 4 * numbers * inputs * outputs


def _complex_rows(bins: Tensor) -> Tensor:
    """Arrange complex bins for real products, (bins, 2, tiles, F) → (bins, 2 · tiles, 2 · F): [[Xr, -Xi], [Xi, Xr]]."""
    count, _, tiles, inputs = bins.shape
    rows = bins.new_empty(count, 2, tiles, 2, inputs)
    rows[:, 0, :, 0] = rows[:, 1, :, 1] = bins[:, 0]
    rows[:, 1, :, 0] = bins[:, 1]
    torch.neg(bins[:, 1], out=rows[:, 0, :, 1])
    return rows.view(count, 2 * tiles, 2 * inputs)


def _blocks(down: int, across: int, each: int, most: int) -> Iterator[tuple[slice, ...]]:
    """Yield rectangles of about `most` tiles each, as indices into `_tiles_of` and `_places`.

    Args:
        down: Number of tiles down, per sub-grid.
        across: Number of tiles across, per sub-grid.
        each: Number of tiles per position (images times sub-grids).
        most: Number of tiles that a rectangle should have at most.
    """
    wide = min(across, max(1, most // each))
    high = max(1, most // (each * wide))
    every = slice(None)
    for top in range(0, down, high):
        for left in range(0, across, wide):
            yield (every,) * 5 + (slice(top, top + high), slice(left, left + wide))
