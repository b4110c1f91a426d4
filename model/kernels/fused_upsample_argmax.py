"""Upsampling, argmax and counting on the CPU in one pass over the pixels, compiled at first use.

Interpolation between four cells is bilinear, first down, then across. Each direction is a `torch.lerp`,

    a + f·(b - a) where f < 1/2,   b + (f - 1)·(b - a) elsewhere,   one rounding for product and sum.

Both cases have one form, base + coefficient·(b - a), and ties resolve as in torch, to the last bit.

At stride s, pixel (s·r + j, s·i + k) is phase (j, k) of cell (r, i). A strip is the s pixel rows below a row of cells.
Its `down` holds the cells of each class blended to these s rows, (C, s·columns). All pixels of a strip with one k are
then a single loop over neighbors in `down` with one coefficient; compilers turn it into vector code without a
remainder. (At the end of each of the s rows, one neighbor is the first cell of the next row; no pixel uses that value.)
Scratch memory is `down` and six vectors of such a loop, (C + 6)·s·columns floats: C + 6 rows of pixels, for any height.

Probabilities: p is bilinear. A running maximum over classes keeps the lowest id of equals. The entropy is
-ln 2·Σ p·log2 p with log2 p = n + t·q(t), where p = 2^n·(1 + t) and √½ ≤ 1 + t < √2. The polynomial q of degree 6
minimizes the largest error, 3e-7; the error of the entropy in nats is smaller still, because Σ p ≤ 1. At p = 0, n is
-127 and the product 0.

Scores: s is bilinear, p = e/S with e = exp(s - max s), S = Σ e. So the largest p is 1/S and the entropy
ln S - Σ e·(s - max s)/S, which takes one logarithm per pixel. exp d = 2^n·(1 + r + r²·q(r)) with |r| ≤ ½·ln 2 and q of
degree 4; the result is nearly correctly rounded.
Of equal p the lowest id wins, although its s may be smaller: e/S rounds to 1/S for e = 1 and sometimes for
e = 1 - 2^-24. It does not for smaller e, because e/S is then at least one unit in the last place away from 1/S. So the
lowest id is kept for each of the two e, and S decides between them.

Sums over pixels are float64. Nothing is reordered (no fast-math), so every CPU with fused multiply-add gives the same
labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.kernels.compilation import compiled

__all__ = ["fused_upsample_argmax"]

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
# The bits of √½: subtracting them puts the exponent of [√½, √2)·2^n at n.
_ROOT_HALF_BITS = 0x3F3504F3
_MANTISSA = 23
_ONE = np.float32(1)
_ZERO = np.float32(0)
_BELOW_ONE = np.float32(1 - 2.0**-24)
_LOG2_E = np.float32(1 / np.log(2))
_LN_2 = np.float32(np.log(2))
# ln 2 in two parts; the first has 9 significant bits, so that its product with n is exact.
_LN_2_HIGH = np.float32(0.693359375)
_LN_2_LOW = np.float32(np.log(2) - 0.693359375)
# Smallest argument of exp: below it, n would fall below -126, the smallest exponent of a normal float32.
_MOST_NEGATIVE = np.float32(-87)
# Adding and then subtracting this constant rounds a float32 below 2^22 to an integer, half to even.
_ROUNDER = np.float32(1.5 * 2**23)
# Coefficients of q, constant term first: _Q of log2, _R of exp.
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6 = (
    np.float32(q) for q in (1.4426997, -0.721375827, 0.480466228, -0.358963241, 0.29725078, -0.272686263, 0.170656854)
)
_R0, _R1, _R2, _R3, _R4 = (np.float32(r) for r in (0.500000009, 0.16666519, 0.0416662063, 0.0083688757, 0.00139504614))


class _Strip(NamedTuple):
    """Scratch memory: the rows of one strip for every class, and vectors over its pixels with one k.

    Attributes:
        down: Cells blended to the rows of the strip, (C, stride·columns) float32, see the module's docstring.
        best: Winning probability, temporarily the largest score, float32; (stride·columns - 1,) as all vectors.
        entropy: Entropy, float32, nats.
        total: Sum S of e over the classes, float32.
        part: Probabilities or scores of one class, then e, float32.
        winner: Lowest class id of the winners, int32.
        near: Lowest class id with e ≥ 1 - 2^-24, int32.
    """

    down: NDArray[np.float32]
    best: NDArray[np.float32]
    entropy: NDArray[np.float32]
    total: NDArray[np.float32]
    part: NDArray[np.float32]
    winner: NDArray[np.int32]
    near: NDArray[np.int32]


class _Image(NamedTuple):
    """Results for an image, and its target.

    Attributes:
        labels: Class ids, (H, W) uint8.
        winning: Winning probability times 255, (H, W) uint8; (0, 0) if the caller does not keep it.
        target: Class ids to count the labels against, (H, W) uint8; (0, 0) if there is no target.
        pairs: Number of pixels by target (0 if there is none) and label, (256, C) int64.
    """

    labels: NDArray[np.uint8]
    winning: NDArray[np.uint8]
    target: NDArray[np.uint8]
    pairs: NDArray[np.int64]


def fused_upsample_argmax(
    cells: NDArray[np.float32],
    height: int,
    width: int,
    *,
    fractions: NDArray[np.float32],
    offset: int,
    probabilities: bool,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, tuple[float, float], NDArray[np.int64]]:
    """Compute labels, confidence, entropy and pixel counts of an image.

    Args:
        cells: Cells between which the pixels lie, border included, (C, rows, columns).
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        fractions: Positions of a strip's pixels between two cells, (stride,), 0–1.
        offset: Pixels of the first strip that lie before the image in each direction, less than the stride.
        probabilities: Whether `cells` are probabilities; otherwise scores.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: there is no target.

    Returns:
        Labels (H, W); the winning probability times 255 (H, W), or None unless `confidence`; the sums over pixels of
        the winning probability and of the entropy in nats; the number of pixels by target and label (256, C), all in
        row 0 without a target.
    """
    classes, _, columns = cells.shape
    length = columns * len(fractions)
    vectors = np.empty((4, length - 1), np.float32)
    ids = np.empty((2, length - 1), np.int32)
    strip = _Strip(np.empty((classes, length), np.float32), *vectors, *ids)
    image = _Image(
        np.empty((height, width), np.uint8),
        np.empty((height, width) if confidence else (0, 0), np.uint8),
        # The compiled code accepts one type of array: contiguous and writeable, although nothing is written.
        np.require(np.empty((0, 0), np.uint8) if target is None else target, np.uint8, ("C", "W")),
        np.zeros((256, classes), np.int64),
    )
    sums = _all_strips(np.ascontiguousarray(cells), fractions, offset, probabilities, strip, image)
    return image.labels, image.winning if confidence else None, sums, image.pairs


def _float_intrinsic(arguments: int, build: Callable[..., ir.Value]) -> Any:
    """Return an intrinsic from float32 arguments to a float32, made of the LLVM instructions of `build`."""
    signature = types.float32(*[types.float32] * arguments)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return build(builder, *values)

    return signature, codegen


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a·b + c with one rounding."""
    return _float_intrinsic(3, lambda builder, a, b, c: builder.fma(a, b, c))


@intrinsic
def _exponent(typing: Any, p: Any) -> Any:
    """Return the exponent n of p = 2^n·(1 + t)."""

    def build(builder: ir.IRBuilder, p: ir.Value) -> ir.Value:
        shifted = builder.sub(builder.bitcast(p, _INT), ir.Constant(_INT, _ROOT_HALF_BITS))
        return builder.sitofp(builder.ashr(shifted, ir.Constant(_INT, _MANTISSA)), _FLOAT)

    return _float_intrinsic(1, build)


@intrinsic
def _fraction(typing: Any, p: Any) -> Any:
    """Return the factor 1 + t of p = 2^n·(1 + t)."""

    def build(builder: ir.IRBuilder, p: ir.Value) -> ir.Value:
        shifted = builder.sub(builder.bitcast(p, _INT), ir.Constant(_INT, _ROOT_HALF_BITS))
        mantissa = builder.and_(shifted, ir.Constant(_INT, 2**_MANTISSA - 1))
        return builder.bitcast(builder.add(mantissa, ir.Constant(_INT, _ROOT_HALF_BITS)), _FLOAT)

    return _float_intrinsic(1, build)


@intrinsic
def _power_of_two(typing: Any, n: Any) -> Any:
    """Compute 2^n for a whole n from -126 to 127."""

    def build(builder: ir.IRBuilder, n: ir.Value) -> ir.Value:
        biased = builder.add(builder.fptosi(n, _INT), ir.Constant(_INT, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT, _MANTISSA)), _FLOAT)

    return _float_intrinsic(1, build)


@njit
def _log2(p: Any) -> Any:
    """Compute the binary logarithm of a probability p; -127 at p = 0."""
    t = _fraction(p) - _ONE
    q = _fma(_fma(_fma(_Q6, t, _Q5), t, _Q4), t, _Q3)
    return _fma(_fma(_fma(_fma(q, t, _Q2), t, _Q1), t, _Q0), t, _exponent(p))


@njit
def _exp(d: Any) -> Any:
    """Compute exp(d) for d ≤ 0; smaller values than -87 count as -87."""
    d = d if d > _MOST_NEGATIVE else _MOST_NEGATIVE
    # d = n·ln 2 + r with a whole n and |r| ≤ ½·ln 2.
    n = _fma(d, _LOG2_E, _ROUNDER) - _ROUNDER
    r = _fma(-n, _LN_2_LOW, _fma(-n, _LN_2_HIGH, d))
    q = _fma(_fma(_fma(_fma(_R4, r, _R3), r, _R2), r, _R1), r, _R0)
    return (_ONE + _fma(r * r, q, r)) * _power_of_two(n)


@njit
def _based(fraction: Any) -> Any:
    """Return which of two neighbors is the base, 0 or 1, and the coefficient of their difference."""
    return (0, fraction) if fraction < np.float32(0.5) else (1, fraction - _ONE)


@njit
def _blend_down(cells: Any, row: Any, fractions: Any, down: Any) -> None:
    """Blend a row of cells with the next one into `down`, the pixel rows of its strip.

    Args:
        cells: Cells, (C, rows, columns).
        row: Index of the upper row of cells.
        fractions: Positions of the pixel rows between the two rows of cells, (stride,).
        down: Result, (C, stride·columns).
    """
    classes, _, columns = cells.shape
    for class_id in range(classes):
        above = cells[class_id, row]
        below = cells[class_id, row + 1]
        for j in range(fractions.size):
            place, coefficient = _based(fractions[j])
            base = cells[class_id, row + place]
            into = down[class_id, j * columns : (j + 1) * columns]
            for i in range(columns):
                into[i] = _fma(coefficient, below[i] - above[i], base[i])


@njit
def _blend_across(down: Any, fraction: Any, part: Any) -> None:
    """Blend neighbors in the rows of one class, `down` (stride·columns,), into the pixels of one k, `part`."""
    place, coefficient = _based(fraction)
    base = down[place:]
    for i in range(part.size):
        part[i] = _fma(coefficient, down[i + 1] - down[i], base[i])


# The functions below split loops that would write to more than three arrays. Such a loop needs so many overlap checks
# at run time that LLVM leaves it scalar, which is five times slower.


@njit
def _probability_phase(strip: Any, fraction: Any) -> None:
    """Compute winning probability, class and entropy of a strip's pixels with one k, from probabilities."""
    part = strip.part
    best = strip.best
    winner = strip.winner
    entropy = strip.entropy
    best[:], winner[:], entropy[:] = -_ONE, 0, _ZERO
    for class_id in range(strip.down.shape[0]):
        _blend_across(strip.down[class_id], fraction, part)
        for i in range(part.size):
            p = part[i]
            # Greater, not greater or equal: the lowest id of equals stays.
            better = p > best[i]
            best[i] = p if better else best[i]
            winner[i] = class_id if better else winner[i]
            entropy[i] = _fma(-_LN_2 * p, _log2(p), entropy[i])


@njit
def _score_phase(strip: Any, fraction: Any) -> None:
    """Compute winning probability, class and entropy of a strip's pixels with one k, from scores."""
    part = strip.part
    best = strip.best
    entropy = strip.entropy
    total = strip.total
    best[:], entropy[:], total[:] = np.float32(-np.inf), _ZERO, _ZERO
    strip.winner[:] = strip.near[:] = strip.down.shape[0] - 1
    # Pass 1: the largest score of each pixel.
    for class_id in range(strip.down.shape[0]):
        _blend_across(strip.down[class_id], fraction, part)
        for i in range(part.size):
            best[i] = part[i] if part[i] > best[i] else best[i]
    # Pass 2: the sums over classes. Blending again costs less memory than keeping every class's pixels.
    for class_id in range(strip.down.shape[0]):
        _blend_across(strip.down[class_id], fraction, part)
        for i in range(part.size):
            d = part[i] - best[i]
            e = _exp(d)
            total[i] += e
            entropy[i] = _fma(e, -d, entropy[i])
            part[i] = e
        _note_largest(strip, class_id)
    # The largest probability is 1/S; the entropy is ln S plus the weighted mean of -d.
    for i in range(part.size):
        best[i] = _ONE / total[i]
        entropy[i] = _fma(entropy[i], best[i], _LN_2 * _log2(total[i]))
    # A class with e = 1 - 2^-24 ties with the winner if its probability rounds to the same float32.
    for i in range(part.size):
        tied = _BELOW_ONE / total[i] == best[i]
        strip.winner[i] = strip.near[i] if tied else strip.winner[i]


@njit
def _note_largest(strip: Any, class_id: Any) -> None:
    """Update the lowest class ids with e = 1 (`winner`) and with e ≥ 1 - 2^-24 (`near`) by one class."""
    part = strip.part
    winner = strip.winner
    near = strip.near
    for i in range(part.size):
        winner[i] = class_id if part[i] >= _ONE and class_id < winner[i] else winner[i]
        near[i] = class_id if part[i] >= _BELOW_ONE and class_id < near[i] else near[i]


@njit
def _settle_phase(strip: Any, image: Any, stride: Any, top: Any, left: Any) -> Any:
    """Write a strip's pixels with one k to the image and count them; pixels beyond the image count nowhere.

    Args:
        strip: Scratch memory after a phase has been computed.
        image: Results, changed in place.
        stride: Pixels from one cell to the next.
        top: Pixel row of the strip's first row, may be negative.
        left: Pixel column of the strip's first pixel with this k, may be negative.

    Returns:
        Sums of the winning probability and of the entropy over the pixels, float64.
    """
    height, width = image.labels.shape
    columns = strip.down.shape[1] // stride
    # Columns i of the strip whose pixel left + stride·i lies within the image; the last cell only serves interpolation.
    first = 1 if left < 0 else 0
    last = min(columns - 1, (width - left + stride - 1) // stride)
    confidence = entropy = 0.0
    for j in range(max(0, -top), min(stride, height - top)):
        y = top + j
        for i in range(first, last):
            # Unsigned, because numba would compare signed indices with 0, to count negative ones from the end.
            x = np.uint32(left + i * stride)
            source = np.uint32(j * columns + i)
            label = strip.winner[source]
            image.labels[y, x] = label
            confidence += strip.best[source]
            entropy += strip.entropy[source]
            if image.winning.size:
                # Rounded to the nearest integer, half to even.
                image.winning[y, x] = np.uint8(strip.best[source] * np.float32(255) + _ROUNDER - _ROUNDER)
            image.pairs[image.target[y, x] if image.target.size else 0, label] += 1
    return confidence, entropy


@compiled
def _all_strips(cells: Any, fractions: Any, offset: Any, probabilities: Any, strip: Any, image: Any) -> Any:
    """Compute all strips from top to bottom; return the total sums of `_settle_phase`."""
    stride = fractions.size
    confidence = entropy = 0.0
    for row in range(cells.shape[1] - 1):
        _blend_down(cells, row, fractions, strip.down)
        for k in range(stride):
            if probabilities:
                _probability_phase(strip, fractions[k])
            else:
                _score_phase(strip, fractions[k])
            sums = _settle_phase(strip, image, stride, row * stride - offset, k - offset)
            confidence += sums[0]
            entropy += sums[1]
    return confidence, entropy
