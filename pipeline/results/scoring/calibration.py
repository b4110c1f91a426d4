"""Is a pixel of confidence 0.8 right in four cases of five? Expected calibration error and reliability curve.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017: pixels are sorted into equal bins of their confidence;
the error is the mean distance between confidence and accuracy of a bin, weighted by its pixels. Confidence maps hold
255 times the winning probability, rounded, so that a confidence is known to within 0.002.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "LEVELS", "Bin", "calibration_counts", "calibration_error", "reliability"]

BINS, LEVELS = 15, 256
_Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """Pixels of a range of confidences.

    Attributes:
        low, high: of the range, 0–1; only the last one holds its upper end.
        pixels: how many there are.
        confidence: their mean; None without pixels.
        accuracy: share of them that are right; None without pixels.
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
    """Counts valid pixels by predicted class, confidence and whether the class is right.

    Args:
        confidence: (H, W) 255 times the winning probability.
        predicted: (H, W) class ids.
        target: (H, W) class ids, or `ignore_label`.
        classes: C.
        ignore_label: of pixels that count nowhere.

    Returns:
        (C, 256, 2): wrong and right.
    """
    valid = target != ignore_label
    index = (predicted[valid].astype(np.int64) * LEVELS + confidence[valid]) * 2 + (predicted == target)[valid]
    return np.bincount(index, minlength=classes * LEVELS * 2).reshape(classes, LEVELS, 2)


def reliability(counts: _Counts, bins: int = BINS) -> list[Bin]:
    """The reliability curve of (256, 2) pixels by confidence and whether they are right."""
    levels = np.arange(LEVELS)
    # Whole numbers, so that a confidence on the edge of two bins always falls into the upper one.
    of_level = np.minimum(levels * bins // (LEVELS - 1), bins - 1)
    pixels, right = counts.sum(axis=1), counts[:, 1]
    curve = []
    for each in range(bins):
        inside = of_level == each
        total = int(pixels[inside].sum())
        mean = float((levels * pixels)[inside].sum() / total / (LEVELS - 1)) if total else None
        accuracy = float(right[inside].sum() / total) if total else None
        curve.append(Bin(each / bins, (each + 1) / bins, total, mean, accuracy))
    return curve


def calibration_error(counts: _Counts, bins: int = BINS) -> float | None:
    """Expected calibration error, 0–1, of (256, 2) counts; None without pixels."""
    curve = reliability(counts, bins)
    total = sum(each.pixels for each in curve)
    if not total:
        return None
    return sum(abs((each.confidence or 0) - (each.accuracy or 0)) * each.pixels for each in curve) / total
