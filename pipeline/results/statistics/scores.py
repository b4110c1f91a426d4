"""Pixel counts of labels and masks, and the scores computed from them.

Scores of a data set come from one confusion matrix, summed over its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Floats",
    "agreement_matrix",
    "class_counts",
    "confusion_matrix",
    "iou_per_class",
    "mean_iou",
    "mean_of_defined",
    "pixel_accuracy",
    "pixel_counts",
    "quotients",
    "ratio",
    "runs_of",
]

Floats = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.int64]


def quotients(part: Numbers, whole: Numbers) -> Floats:
    """Divide arrays of the same shape element by element; the result is NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def mean_of_defined(values: Floats) -> Floats:
    """Average the values that are not NaN along the last axis.

    Args:
        values: (…, C) values; NaN where undefined.

    Returns:
        (…) means; NaN where all C values are NaN.
    """
    # Zeros replace NaN in the sum, and the count of defined values divides it: (…, C) -> (…).
    defined = ~np.isnan(values)
    return quotients(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


Matrix = NDArray[np.int64]


def confusion_matrix(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_label: int = 255
) -> Matrix:
    """Count pixels by pair of target class and predicted class.

    Args:
        target: (H, W) uint8 class ids; pixels equal to `ignore_label` count nowhere.
        predicted: (H, W) uint8 class ids.
        classes: Number of classes C.
        ignore_label: Value of ignored pixels in `target`, at most 255; may be less than C.

    Returns:
        (C, C) int64 pixel counts; rows are target classes, columns are predicted classes.

    Raises:
        ValueError: If the shapes differ or a class id is out of range.
    """
    if target.shape != predicted.shape:
        raise ValueError(f"label {target.shape} and mask {predicted.shape} differ in size")
    pairs = _pairs(target, predicted)
    pairs[ignore_label] = 0
    return _of_classes(pairs, classes)


def agreement_matrix(first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int) -> Matrix:
    """Count pixels by pair of classes in two masks; no pixel is ignored.

    Args:
        first: (H, W) uint8 class ids of one mask.
        second: (H, W) uint8 class ids of the other mask.
        classes: Number of classes C.

    Returns:
        (C, C) int64 pixel counts; rows are classes of `first`, columns are classes of `second`.

    Raises:
        ValueError: If the shapes differ or a class id is out of range.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks {first.shape} and {second.shape} differ in size")
    return _of_classes(_pairs(first, second), classes)


def _pairs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Matrix:
    # A (256, 256) matrix holds every uint8 id, so one bincount without masking is the fastest exact method.
    # Two (H, W) arrays -> (H · W,) pair codes -> (65536,) counts -> (256, 256).
    return np.bincount((first.astype(np.uint16) * 256 + second).ravel(), minlength=65536).reshape(256, 256)


def _of_classes(pairs: Matrix, classes: int) -> Matrix:
    if pairs[classes:].any() or pairs[:, classes:].any():
        raise ValueError(f"a class id is not below {classes}")
    return pairs[:classes, :classes].astype(np.int64)


def pixel_counts(predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class in a mask.

    Args:
        predicted: (H, W) uint8 class ids.
        classes: Number of classes C.

    Returns:
        (C,) int64 pixel counts; longer if the mask holds an id of C or more.
    """
    return np.bincount(predicted.ravel(), minlength=classes).astype(np.int64)


def runs_of(values: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Run-length encode an array.

    Args:
        values: (N,) values.

    Returns:
        Value and length of each run of equal neighbors, in order; both arrays are empty if N is 0.
    """
    # A run starts at the first element, and wherever a value differs from its predecessor.
    starts = np.flatnonzero(np.concatenate([[len(values) > 0], values[1:] != values[:-1]]))
    return values[starts], np.diff(np.append(starts, len(values)))


def ratio(numerator: float, denominator: float) -> float | None:
    """Divide two numbers; return None if the denominator is 0."""
    return float(numerator / denominator) if denominator else None


def iou_per_class(confusion: Matrix) -> list[float | None]:
    """Return the intersection over union of each class from a confusion matrix.

    Args:
        confusion: (C, C) pixel counts; rows are target classes.

    Returns:
        C values in [0, 1]; None for a class that occurs neither in labels nor in masks.
    """
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return [None if np.isnan(value) else float(value) for value in quotients(intersection, union)]


def mean_iou(confusion: Matrix) -> float | None:
    """Return the mean IoU over the classes of a confusion matrix whose IoU is defined; None if there is none."""
    defined = [value for value in iou_per_class(confusion) if value is not None]
    return ratio(sum(defined), len(defined))


def pixel_accuracy(confusion: Matrix) -> float | None:
    """Return the fraction of valid pixels on the diagonal of a confusion matrix; None if there is no valid pixel."""
    return ratio(int(confusion.trace()), int(confusion.sum()))


def class_counts(
    names: Sequence[str], predicted_pixels: NDArray[np.int64], confusion: Matrix | None
) -> list[dict[str, Any]]:
    """Return the value of the `classes` column of `predictions` for one image.

    Args:
        names: Names of the C classes, by class id.
        predicted_pixels: (C,) predicted pixels over the whole image; used only without a label.
        confusion: (C, C) confusion matrix of the image; None without a label. With a label, predicted pixels count
            within its valid pixels only, so that union = predicted + target - intersection.

    Returns:
        One dictionary per class, by class id. `target_pixels` and `intersection` are None without a label.
    """
    predicted = predicted_pixels if confusion is None else confusion.sum(axis=0)
    return [
        {
            "class_id": class_id,
            "class_name": name,
            "predicted_pixels": int(predicted[class_id]),
            "target_pixels": None if confusion is None else int(confusion[class_id].sum()),
            "intersection": None if confusion is None else int(confusion[class_id, class_id]),
        }
        for class_id, name in enumerate(names)
    ]
