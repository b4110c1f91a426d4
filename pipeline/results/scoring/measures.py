"""Measures beyond IoU: boundary IoU of masks, and calibration of their confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "LEVELS",
    "Bin",
    "boundary_counts",
    "boundary_region",
    "boundary_width",
    "calibration_counts",
    "calibration_error",
    "reliability",
]

_DIAGONAL_SHARE = 0.02


def boundary_width(height: int, width: int) -> int:
    """Return the pixels counted on each side of an outline: 2% of the image's diagonal, as published; at least 1."""
    return max(1, round(_DIAGONAL_SHARE * math.hypot(height, width)))


def boundary_region(ids: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Find the pixels within a distance of a pixel of another id, or of the outside of the image.

    The result equals what erosion by `distance` steps of a 3×3 square removes from the region of each id, for all ids
    at once.

    Args:
        ids: (H, W) class ids.
        distance: Distance in pixels, at least 1; a diagonal step counts as one.

    Returns:
        (H, W) array, True for the pixels near an outline.
    """
    height, width = ids.shape
    region = np.ones((height, width), np.bool_)
    side = 2 * distance + 1
    if side > height or side > width:
        return region
    # A window of `side` by `side` pixels holds one id alone if no row of it has a change from one pixel to the next,
    # and neither has its middle column. Let d = distance.
    # Changes in each row of a window: (H, W - 1) -> (H, W - 2d)
    across = _in_windows(ids[:, 1:] != ids[:, :-1], side - 1, axis=1)
    # Changes in the middle column of a window: (H - 1, W) -> (H - 2d, W - 2d)
    down = _in_windows(ids[1:] != ids[:-1], side - 1, axis=0)[:, distance : width - distance]
    # The outermost d pixels are near the outside of the image, so they stay True.
    region[distance : height - distance, distance : width - distance] = (
        _in_windows(across > 0, side, axis=0) + down
    ) > 0
    return region


def boundary_counts(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_label: int = 255
) -> NDArray[np.int64]:
    """Count the pixels of the boundary regions of each class.

    The ignore label has outlines like a class, because published labels draw it around objects. Its pixels are not
    counted.

    Args:
        target: (H, W) class ids, or `ignore_label`.
        predicted: (H, W) class ids.
        classes: Number of classes C.
        ignore_label: Value of pixels that are not counted; it may lie below C.

    Returns:
        (3, C) pixels: in the mask's regions, in the label's regions, and in both at once with the same class.
    """
    distance = boundary_width(*target.shape)
    valid = target != ignore_label
    of_target = boundary_region(target, distance) & valid
    of_mask = boundary_region(predicted, distance) & valid
    both = of_target & of_mask & (target == predicted)
    chosen = predicted[of_mask], target[of_target], target[both]
    return np.stack([np.bincount(each, minlength=classes) for each in chosen]).astype(np.int64)


def _in_windows(values: NDArray[np.bool_], side: int, axis: int) -> NDArray[np.int32]:
    """Count the true values in each window of `side` values along an axis, which becomes shorter by `side` - 1."""
    # The sum of a window is a difference of two cumulative sums.
    lines = np.moveaxis(values, axis, 0)
    sums = np.zeros((len(lines) + 1, lines.shape[1]), np.int32)
    np.cumsum(lines, axis=0, out=sums[1:])
    return np.moveaxis(sums[side:] - sums[:-side], 0, axis)


# Bins of the reliability curve, and values of a confidence map.
BINS = 15
LEVELS = 256
_Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """Bin of the reliability curve: the pixels of a range of confidences.

    Attributes:
        low: Lower end of the range, 0–1, included.
        high: Upper end of the range, 0–1; only the last bin includes it.
        pixels: Number of pixels in the bin.
        confidence: Mean confidence of the pixels, 0–1; None without pixels.
        accuracy: Fraction of the pixels that are right, 0–1; None without pixels.
    """

    low: float
    high: float
    pixels: int
    confidence: float | None
    accuracy: float | None


def calibration_counts(
    confidence: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    target: NDArray[np.uint8],
    classes: int,
    ignore_label: int = 255,
) -> _Counts:
    """Count valid pixels by predicted class, by confidence, and by whether the class is right.

    Args:
        confidence: (H, W) confidences, 255 times the winning probability.
        predicted: (H, W) class ids.
        target: (H, W) class ids, or `ignore_label`.
        classes: Number of classes C.
        ignore_label: Value of pixels that are not counted.

    Returns:
        (C, 256, 2) pixels; the last axis is wrong, right.
    """
    valid = target != ignore_label
    # One number for each cell of the result, so that a single bincount fills it.
    index = (predicted[valid].astype(np.int64) * LEVELS + confidence[valid]) * 2 + (predicted == target)[valid]
    return np.bincount(index, minlength=classes * LEVELS * 2).reshape(classes, LEVELS, 2)


def reliability(counts: _Counts, bins: int = BINS) -> list[Bin]:
    """Return the reliability curve of (256, 2) pixel counts by confidence; the last axis is wrong, right."""
    levels = np.arange(LEVELS)
    # Integer arithmetic: a confidence on the edge of two bins always falls into the upper one.
    of_level = np.minimum(levels * bins // (LEVELS - 1), bins - 1)
    pixels = counts.sum(axis=1)
    right = counts[:, 1]
    curve = []
    for each in range(bins):
        inside = of_level == each
        total = int(pixels[inside].sum())
        mean = float((levels * pixels)[inside].sum() / total / (LEVELS - 1)) if total else None
        accuracy = float(right[inside].sum() / total) if total else None
        curve.append(Bin(each / bins, (each + 1) / bins, total, mean, accuracy))
    return curve


def calibration_error(counts: _Counts, bins: int = BINS) -> float | None:
    """Return the expected calibration error, 0–1, of (256, 2) counts as in `reliability`; None without pixels."""
    curve = reliability(counts, bins)
    total = sum(each.pixels for each in curve)
    if not total:
        return None
    return sum(abs((each.confidence or 0) - (each.accuracy or 0)) * each.pixels for each in curve) / total
