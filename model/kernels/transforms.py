"""Transforms that turn a convolution into one product per bin: Winograd for 3x3 windows, Fourier for larger ones.

A valid correlation of a tile x (n x n pixels, n = m + r - 1) with a window w (r x r taps) has m x m outputs

    y = inverse · ((kernel · w) * (forward · x))

where * multiplies bin by bin, and sums over input channels are taken before the inverse. All three are plain matrices
over flattened pixels, so the whole convolution is two matrix products and one batch of matrix products.

Winograd / Toom-Cook, one axis: evaluate both polynomials at n points (the last one infinity), multiply, interpolate;
the correlation is the transpose of that. F(4, 3) has 36 products for 16 outputs of 9 taps, a quarter of the direct
convolution's. See Lavin & Gray 2016. Of the sets of points that were tried, this one is best: a quarter of the error
of 0, ±1, ±2.

Fourier: the real transform keeps one bin of each conjugate pair, with twice its weight in the inverse. The complex
product of a bin is a real product over twice the channels, [[Xr, -Xi], [Xi, Xr]] · [Wr; Wi]. A tile of 12 x 8 outputs
and 7 x 7 taps has 18 x 14 pixels and 128 bins. It takes 512 multiplications; the direct convolution takes 4,704.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Transform", "fourier", "winograd"]

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
