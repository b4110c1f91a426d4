"""Scores from counts, with one set of formulas for an image, a run and its resamples. Undefined scores are NaN.

Names and definitions are those of Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation,
CVPR 2015 (section 5): n_ij pixels of class i are predicted as class j, and t_i is the sum of n_ij over j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.results.statistics.quotients import Floats, mean_of_defined, quotients

__all__ = ["CLASS_SCORES", "MEAN_SCORES", "class_scores", "mean_scores"]

CLASS_SCORES = ("iou", "dice", "precision", "recall", "boundary_iou")
MEAN_SCORES = (
    "mean_iou",
    "mean_dice",
    "pixel_accuracy",
    "mean_accuracy",
    "frequency_weighted_iou",
    "mean_boundary_iou",
)


def class_scores(sums: NDArray[np.generic]) -> dict[str, Floats]:
    """Return each of `CLASS_SCORES`, shape (…, C), from (…, 5, C) sums as in `Counts.sums`."""
    inter, target, predicted, boundary_both, boundary_union = np.moveaxis(sums.astype(np.float64), -2, 0)
    return {
        "iou": quotients(inter, target + predicted - inter),
        "dice": quotients(2 * inter, target + predicted),
        "precision": quotients(inter, predicted),
        "recall": quotients(inter, target),
        "boundary_iou": quotients(boundary_both, boundary_union),
    }


def mean_scores(sums: NDArray[np.generic]) -> dict[str, Floats]:
    """Return each of `MEAN_SCORES`, shape (…), from (…, 5, C) sums; means are over the classes that have the score."""
    inter, target, *_ = np.moveaxis(sums.astype(np.float64), -2, 0)
    classes = class_scores(sums)
    pixels = target.sum(axis=-1)
    # A class without target pixels has weight 0, whether its IoU is 0 or, without a union, undefined.
    weighted = np.where(target > 0, target * np.nan_to_num(classes["iou"]), 0.0).sum(axis=-1)
    return {
        "mean_iou": mean_of_defined(classes["iou"]),
        "mean_dice": mean_of_defined(classes["dice"]),
        "pixel_accuracy": quotients(inter.sum(axis=-1), pixels),
        "mean_accuracy": mean_of_defined(classes["recall"]),
        "frequency_weighted_iou": quotients(weighted, pixels),
        "mean_boundary_iou": mean_of_defined(classes["boundary_iou"]),
    }
