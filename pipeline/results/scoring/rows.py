"""Tables below `scores/`, computed from counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.results.scoring import schemas
from pipeline.results.scoring.counts import Counts, ScoredImage
from pipeline.results.scoring.measures import boundary_width, calibration_error, reliability
from pipeline.results.statistics.bootstrap import Resampling, interval
from pipeline.results.statistics.scores import Floats, mean_of_defined, quotients

__all__ = [
    "CLASS_SCORES",
    "MEAN_SCORES",
    "class_scores",
    "class_table",
    "image_class_table",
    "image_table",
    "mean_scores",
    "reliability_table",
    "run_table",
]

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


def image_table(run_id: str, images: Iterable[ScoredImage], *, calibrated: bool) -> pa.Table:
    """Return the table of image scores, one row per scored image; `calibrated`: the run has confidence maps."""
    rows = [
        {
            "run_id": run_id,
            "image_uri": image.uri,
            "pixels": int(image.counts.confusion.sum()),
            "boundary_width": boundary_width(*image.size),
            **{name: _value(score) for name, score in mean_scores(image.counts.sums()).items()},
            "expected_calibration_error": _error(image.counts, calibrated),
        }
        for image in images
        if image.counts is not None
    ]
    return pa.Table.from_pylist(rows, schema=schemas.IMAGES)


def image_class_table(run_id: str, names: Sequence[str], images: Iterable[ScoredImage]) -> pa.Table:
    """Return the table of class scores in each image, one row per scored image and class."""
    rows: list[dict[str, Any]] = []
    for image in images:
        if image.counts is not None:
            rows += _image_classes(run_id, names, image.uri, image.counts)
    return pa.Table.from_pylist(rows, schema=schemas.IMAGE_CLASSES)


def run_table(run_id: str, total: Counts, images: int, resampling: Resampling, *, calibrated: bool) -> pa.Table:
    """Return the table of the whole run, one row per score, with 95% intervals of the mean scores.

    Args:
        run_id: Value of the column `run_id`.
        total: Sums of the counts over all scored images.
        images: Number of scored images.
        resampling: Bootstrap over the images.
        calibrated: Whether the run has confidence maps; without them, calibration is undefined.
    """
    values = mean_scores(total.sums())
    resampled = _resampled(resampling)
    rows = [
        {**_estimate(name, values[name], None if resampled is None else mean_scores(resampled)[name]), "images": images}
        for name in MEAN_SCORES
    ]
    error = {"score": "expected_calibration_error", "value": _error(total, calibrated), "low": None, "high": None}
    rows.append({**error, "images": images})
    return pa.Table.from_pylist([{"run_id": run_id, **row} for row in rows], schema=schemas.RUN)


def class_table(
    run_id: str, names: Sequence[str], total: Counts, resampling: Resampling, *, calibrated: bool
) -> pa.Table:
    """Return the table of the classes over the whole run, one row per class and score.

    Args:
        run_id: Value of the column `run_id`.
        names: Names of the classes, by id.
        total: Sums of the counts over all scored images.
        resampling: Bootstrap over the images.
        calibrated: Whether the run has confidence maps; without them, calibration is undefined.
    """
    values = class_scores(total.sums())
    resampled = _resampled(resampling)
    scattered = None if resampled is None else class_scores(resampled)
    rows: list[dict[str, Any]] = []
    for class_id, class_name in enumerate(names):
        head = {"run_id": run_id, "class_id": class_id, "class_name": class_name}
        for score in CLASS_SCORES:
            spread = None if scattered is None else scattered[score][:, class_id]
            rows.append({**head, **_estimate(score, values[score][class_id], spread)})
        error = calibration_error(total.calibration[class_id]) if calibrated else None
        rows.append({**head, "score": "expected_calibration_error", "value": error})
    return pa.Table.from_pylist(rows, schema=schemas.CLASSES)


def reliability_table(run_id: str, names: Sequence[str], total: Counts, *, calibrated: bool) -> pa.Table:
    """Return the reliability curves of all classes together and of each class; no rows unless `calibrated`."""
    rows = list(_reliability_rows(names, total)) if calibrated else []
    return pa.Table.from_pylist([{"run_id": run_id, **row} for row in rows], schema=schemas.RELIABILITY)


def _reliability_rows(names: Sequence[str], total: Counts) -> Iterator[dict[str, Any]]:
    """Yield one row per bin: first all classes together, whose class is None, then each predicted class."""
    of_classes = ((class_id, name, total.calibration[class_id]) for class_id, name in enumerate(names))
    curves = ((None, None, total.calibration.sum(axis=0)), *of_classes)
    for class_id, name, counts in curves:
        for each in reliability(counts):
            yield {
                "class_id": class_id,
                "class_name": name,
                "confidence_low": each.low,
                "confidence_high": each.high,
                "pixels": each.pixels,
                "mean_confidence": each.confidence,
                "accuracy": each.accuracy,
            }


def _image_classes(run_id: str, names: Sequence[str], uri: str, counts: Counts) -> Iterator[dict[str, Any]]:
    """Yield one row per class of an image."""
    # (5, C), in the order of `Counts.sums`: rows 3 and 4 are those of the boundary regions.
    sums = counts.sums()
    scores = class_scores(sums)
    for class_id, class_name in enumerate(names):
        yield {
            "run_id": run_id,
            "image_uri": uri,
            "class_id": class_id,
            "class_name": class_name,
            **{name: _value(score[class_id]) for name, score in scores.items()},
            "boundary_intersection": int(sums[3, class_id]),
            "boundary_union": int(sums[4, class_id]),
        }


def _estimate(name: str, value: Floats, resampled: Floats | None) -> dict[str, Any]:
    """Return a score with its 95% interval; None in place of undefined values and ends."""
    low, high = (None if resampled is None else interval(resampled)) or (None, None)
    return {"score": name, "value": _value(value), "low": low, "high": high}


def _resampled(resampling: Resampling) -> Floats | None:
    """Return the (R, 5, C) sums of R resamples; None if no image was scored."""
    sums = resampling.sums()
    return sums if sums.ndim == 3 else None


def _error(counts: Counts, calibrated: bool) -> float | None:
    """Return the expected calibration error over all classes; None if it is undefined."""
    return calibration_error(counts.calibration.sum(axis=0)) if calibrated else None


def _value(score: Any) -> float | None:
    """Return a score as a float; None for NaN, since undefined is null in the tables."""
    value = float(np.asarray(score))
    return None if math.isnan(value) else value
