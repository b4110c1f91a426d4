"""From counts to scores: the same lines for an image, a run, and a thousand resamples of it. Undefined is NaN.

Names and definitions are those of Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation,
CVPR 2015 (section 5): n_ij pixels of class i are predicted as class j, and t_i is the sum of n_ij over j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASS_SCORES", "MEAN_SCORES", "Floats", "class_scores", "mean_scores"]

CLASS_SCORES = ("iou", "dice", "precision", "recall", "boundary_iou")
MEAN_SCORES = (
    "mean_iou",
    "mean_dice",
    "pixel_accuracy",
    "mean_accuracy",
    "frequency_weighted_iou",
    "mean_boundary_iou",
)

Floats = NDArray[np.float64]


def class_scores(sums: NDArray[np.generic]) -> dict[str, Floats]:
    """(…, 5, C) sums as in `Counts.sums` → each of `CLASS_SCORES`, (…, C)."""
    inter, target, predicted, boundary_both, boundary_union = np.moveaxis(sums.astype(np.float64), -2, 0)
    return {
        "iou": _ratio(inter, target + predicted - inter),
        "dice": _ratio(2 * inter, target + predicted),
        "precision": _ratio(inter, predicted),
        "recall": _ratio(inter, target),
        "boundary_iou": _ratio(boundary_both, boundary_union),
    }


def mean_scores(sums: NDArray[np.generic]) -> dict[str, Floats]:
    """(…, 5, C) sums → each of `MEAN_SCORES`, (…); means are over the classes that have the score."""
    inter, target, *_ = np.moveaxis(sums.astype(np.float64), -2, 0)
    classes = class_scores(sums)
    pixels = target.sum(axis=-1)
    # A class without target pixels weighs nothing, whatever its IoU; without a union it has none.
    weighted = np.where(target > 0, target * np.nan_to_num(classes["iou"]), 0.0).sum(axis=-1)
    return {
        "mean_iou": _mean(classes["iou"]),
        "mean_dice": _mean(classes["dice"]),
        "pixel_accuracy": _ratio(inter.sum(axis=-1), pixels),
        "mean_accuracy": _mean(classes["recall"]),
        "frequency_weighted_iou": _ratio(weighted, pixels),
        "mean_boundary_iou": _mean(classes["boundary_iou"]),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))
