"""From label and mask to counts, and from counts to scores. Data-set scores come from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.results.quotients import quotients

__all__ = [
    "agreement_matrix",
    "class_counts",
    "confusion_matrix",
    "iou_per_class",
    "mean_iou",
    "pixel_accuracy",
    "pixel_counts",
    "ratio",
    "runs_of",
]

Matrix = NDArray[np.int64]


def confusion_matrix(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_label: int = 255
) -> Matrix:
    """Counts pixels by (target, predicted).

    Args:
        target: (H, W) class ids, or `ignore_label` for pixels that count nowhere.
        predicted: (H, W) class ids.
        classes: C.
        ignore_label: see `target`; may lie below C.

    Returns:
        (C, C) int64, rows the target.

    Raises:
        ValueError: if the shapes differ or an id is out of range.
    """
    if target.shape != predicted.shape:
        raise ValueError(f"label {target.shape} and mask {predicted.shape} differ in size")
    pairs = _pairs(target, predicted)
    pairs[ignore_label] = 0
    return _of_classes(pairs, classes)


def agreement_matrix(first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int) -> Matrix:
    """Counts pixels by (class in one mask, class in another), none of them ignored.

    Args:
        first, second: (H, W) class ids.
        classes: C.

    Returns:
        (C, C) int64, rows the first.

    Raises:
        ValueError: if the shapes differ or an id is out of range.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks {first.shape} and {second.shape} differ in size")
    return _of_classes(_pairs(first, second), classes)


def _pairs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Matrix:
    # Ids up to 255 fit beside any class: one bincount without a mask is the fastest exact way.
    return np.bincount((first.astype(np.uint16) * 256 + second).ravel(), minlength=65536).reshape(256, 256)


def _of_classes(pairs: Matrix, classes: int) -> Matrix:
    if pairs[classes:].any() or pairs[:, classes:].any():
        raise ValueError(f"a class id is not below {classes}")
    return pairs[:classes, :classes].astype(np.int64)


def pixel_counts(predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(H, W) class ids → pixels of each class, (C,) int64."""
    return np.bincount(predicted.ravel(), minlength=classes).astype(np.int64)


def runs_of(values: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Values of (N,) equal neighbours, and how many of them there are, in order."""
    starts = np.flatnonzero(np.concatenate([[len(values) > 0], values[1:] != values[:-1]]))
    return values[starts], np.diff(np.append(starts, len(values)))


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, None where it is undefined."""
    return float(numerator / denominator) if denominator else None


def iou_per_class(confusion: Matrix) -> list[float | None]:
    """Intersection over union of each class; None where the class occurs neither in labels nor in masks."""
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return [None if np.isnan(value) else float(value) for value in quotients(intersection, union)]


def mean_iou(confusion: Matrix) -> float | None:
    """Mean over the classes that have an IoU; None if none has."""
    defined = [value for value in iou_per_class(confusion) if value is not None]
    return ratio(sum(defined), len(defined))


def pixel_accuracy(confusion: Matrix) -> float | None:
    """Share of valid pixels on the diagonal; None if there is no valid pixel."""
    return ratio(int(confusion.trace()), int(confusion.sum()))


def class_counts(
    names: Sequence[str], predicted_pixels: NDArray[np.int64], confusion: Matrix | None
) -> list[dict[str, Any]]:
    """The `classes` column of one image.

    Args:
        names: of the classes.
        predicted_pixels: (C,) over the whole image; used where there is no label.
        confusion: (C, C) where there is a label: then predicted pixels count within valid label pixels, so that
            union = predicted + target - intersection.
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
