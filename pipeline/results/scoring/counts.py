"""Pixel counts of one image, added up over a run; all scores follow from these counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.results.scoring.boundary import boundary_counts
from pipeline.results.scoring.calibration import LEVELS, calibration_counts
from pipeline.results.statistics.scores import Matrix, confusion_matrix

__all__ = ["Counts", "count"]


@dataclass(frozen=True)
class Counts:
    """Pixel counts of one image, or sums over many.

    Attributes:
        confusion: (C, C) pixels by target and predicted class.
        boundary: (3, C) pixels of the boundary regions: of masks, of labels, of both with the same class.
        calibration: (C, 256, 2) pixels by predicted class, confidence, wrong and right; zeros without confidence maps.
    """

    confusion: Matrix
    boundary: NDArray[np.int64]
    calibration: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> Counts:
        """Return the counts of no image, which are zeros."""
        shapes = (classes, classes), (3, classes), (classes, LEVELS, 2)
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.confusion + other.confusion,
            self.boundary + other.boundary,
            self.calibration + other.calibration,
        )

    def sums(self) -> NDArray[np.int64]:
        """Return (5, C) pixels: intersection, target, predicted, and intersection and union of the boundary regions."""
        of_mask, of_label, both = self.boundary
        return np.stack(
            [
                self.confusion.diagonal(),
                self.confusion.sum(axis=1),
                self.confusion.sum(axis=0),
                both,
                of_mask + of_label - both,
            ]
        )


def count(
    target: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    classes: int,
    ignore_label: int,
) -> Counts:
    """Count the pixels of one image.

    Args:
        target: (H, W) class ids, or `ignore_label`.
        predicted: (H, W) class ids.
        confidence: (H, W) confidences, 255 times the winning probability; None: calibration is not counted.
        classes: Number of classes C.
        ignore_label: Value of pixels that are not counted.

    Raises:
        ValueError: If shapes differ or an id is out of range.
    """
    confusion = confusion_matrix(target, predicted, classes, ignore_label)
    boundary = boundary_counts(target, predicted, classes, ignore_label)
    if confidence is None:
        return Counts(confusion, boundary, Counts.zero(classes).calibration)
    return Counts(confusion, boundary, calibration_counts(confidence, predicted, target, classes, ignore_label))
