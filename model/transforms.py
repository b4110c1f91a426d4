"""Transforms in which a convolution is one product per bin: Winograd's for 3x3 windows, Fourier's for larger ones.

A valid correlation of a tile x (n x n pixels, n = m + r - 1) with a window w (r x r taps) has m x m outputs

    y = inverse · ((kernel · w) * (forward · x))

where * multiplies bin by bin, and sums over input channels go inside. All three are plain matrices over flattened
pixels, so that the whole convolution is two matrix products and one batch of them.

Winograd / Toom-Cook, one axis: evaluate both polynomials at n points (the last one infinity), multiply, interpolate;
the correlation is the transpose of that. F(4, 3) has 36 products for 16 outputs of 9 taps: four times less.
Lavin & Gray 2016; the points are the best of those tried: 4 times less error than 0, ±1, ±2.

Fourier: of the real transform's bins one of each conjugate pair is kept, with twice its weight on the way back. The
complex product of a bin is a real one over twice the channels, [[Xr, -Xi], [Xi, Xr]] · [Wr; Wi]. A tile of 12 x 8
outputs and 7 x 7 taps has 18 x 14 pixels and 128 bins, 512 multiplications where the direct way has 4,704.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Transform", "fourier", "winograd"]

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


@dataclass(frozen=True)
class Transform:
    """The three matrices, float32, for one size of tile.

    Attributes:
        outputs: rows and columns of outputs of a tile, m.
        taps: rows, and columns, of the window, r.
        forward: (bins · parts, tile pixels).
        kernel: (bins · parts, taps²).
        inverse: (outputs, bins · parts).
        parts: 1 for real bins; 2 for complex ones, real then imaginary part.
    """

    outputs: tuple[int, int]
    taps: int
    forward: Tensor
    kernel: Tensor
    inverse: Tensor
    parts: int

    @property
    def bins(self) -> int:
        """Products of a tile."""
        return len(self.forward) // self.parts

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of pixels that a tile sees, n."""
        rows, columns = self.outputs
        return rows + self.taps - 1, columns + self.taps - 1


def winograd() -> Transform:
    """F(4x4, 3x3)."""
    outputs, taps = 4, 3
    size = outputs + taps - 1
    interpolation = np.linalg.inv(_evaluation(size))
    axes = interpolation.T, _evaluation(taps), _evaluation(outputs).T
    forward, kernel, inverse = (_matrix(np.kron(axis, axis)) for axis in axes)
    return Transform((outputs, outputs), taps, forward, kernel, inverse, parts=1)


def fourier(outputs: tuple[int, int], taps: int) -> Transform:
    """The discrete Fourier transform of a tile with that many rows and columns of outputs."""
    rows, columns = (length + taps - 1 for length in outputs)
    bins = [(u, v) for u in range(rows) for v in range(columns) if (u, v) <= (-u % rows, -v % columns)]
    # Bins that are their own conjugate count once.
    weights = [(1 if (u, v) == (-u % rows, -v % columns) else 2) / (rows * columns) for u, v in bins]

    def waves(height: int, width: int, sign: int) -> NDArray[np.float64]:
        down, right = np.mgrid[:height, :width]
        angles = [2 * np.pi * (u * down / rows + v * right / columns).ravel() for u, v in bins]
        return np.stack([[np.cos(angle), sign * np.sin(angle)] for angle in angles]).reshape(2 * len(bins), -1)

    inverse = waves(*outputs, -1) * np.repeat(weights, 2)[:, None]
    matrices = waves(rows, columns, -1), waves(taps, taps, 1), inverse.T
    forward, kernel, back = (_matrix(values) for values in matrices)
    return Transform(outputs, taps, forward, kernel, back, parts=2)


def _evaluation(length: int) -> NDArray[np.float64]:
    """Values of a polynomial of `length` coefficients at the points, the last row its leading coefficient."""
    finite = np.vander(_POINTS, length, increasing=True)
    return np.vstack([finite, np.eye(length)[-1]])


def _matrix(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
