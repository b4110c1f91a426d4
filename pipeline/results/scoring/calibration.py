"""Expected calibration error and reliability curve, after Guo et al., On Calibration of Modern Neural Networks, 2017.

If confidences are calibrated, a pixel of confidence 0.8 is right in four cases of five. The paper (ICML 2017) sorts
pixels into equal bins of their confidence. The error is the mean distance between confidence and accuracy of a bin,
weighted by its pixels. Confidence maps hold 255 times the winning probability, rounded: a confidence is known to within
0.002.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LEVELS", "Bin", "calibration_counts", "calibration_error", "reliability"]

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
