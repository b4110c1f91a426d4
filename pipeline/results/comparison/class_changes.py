"""What a comparison says of each class: scores, their difference, and how far the masks agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.results.comparison.schemas import AGREEMENT, COMPARISON
from pipeline.results.comparison.score_differences import ScoreDifference, ScoreDifferences
from pipeline.results.scores import Matrix, iou_per_class, ratio

__all__ = ["ClassChange", "agreement_table", "class_changes", "comparison_table"]


@dataclass(frozen=True)
class ClassChange:
    """One class, or the mean over the classes.

    Attributes:
        class_id: None for the mean.
        name: of the class.
        score: IoU of both runs.
        images: labelled images whose label holds the class; for the mean all labelled ones.
        pixels_a, pixels_b, pixels_both: pixels of the class in the masks of A, of B, and in both at once; for the
            mean all pixels, and those that agree.
        agreement: pixels in both / pixels in either; for the mean the mean of it; None where undefined.
    """

    class_id: int | None
    name: str
    score: ScoreDifference
    images: int
    pixels_a: int
    pixels_b: int
    pixels_both: int
    agreement: float | None


def class_changes(
    names: Sequence[str], scores: ScoreDifferences, agreement: Matrix, images: Sequence[int], labelled: int
) -> tuple[list[ClassChange], ClassChange]:
    """One entry per class, by id, and that of the mean.

    Args:
        names: of the C classes.
        scores: of both runs.
        agreement: (C, C) pixels by class in A and class in B.
        images: whose label holds each class, (C,).
        labelled: images with a label.
    """
    agreements = iou_per_class(agreement)
    defined = [value for value in agreements if value is not None]
    of_a, of_b, in_both = agreement.sum(axis=1), agreement.sum(axis=0), agreement.diagonal()
    classes = [
        ClassChange(
            class_id,
            names[class_id],
            scores.classes[class_id],
            images[class_id],
            int(of_a[class_id]),
            int(of_b[class_id]),
            int(in_both[class_id]),
            agreements[class_id],
        )
        for class_id in range(len(names))
    ]
    total, both = int(agreement.sum()), int(agreement.trace())
    mean = ClassChange(None, "mean", scores.mean, labelled, total, total, both, ratio(sum(defined), len(defined)))
    return classes, mean


def comparison_table(run_ids: tuple[str, str], classes: Sequence[ClassChange], mean: ClassChange) -> pa.Table:
    """One row per class, by id, then that of the mean."""
    return pa.Table.from_pylist([_row(run_ids, change) for change in (*classes, mean)], schema=COMPARISON)


def agreement_table(run_ids: tuple[str, str], names: Sequence[str], agreement: Matrix) -> pa.Table:
    """One row per pair of classes, all C × C of them."""
    rows = [
        {
            "run_id_a": run_ids[0],
            "run_id_b": run_ids[1],
            "class_id_a": first,
            "class_name_a": names[first],
            "class_id_b": second,
            "class_name_b": names[second],
            "pixels": int(agreement[first, second]),
        }
        for first, second in np.ndindex(*agreement.shape)
    ]
    return pa.Table.from_pylist(rows, schema=AGREEMENT)


def _row(run_ids: tuple[str, str], change: ClassChange) -> dict[str, Any]:
    low, high = change.score.interval or (None, None)
    return {
        "run_id_a": run_ids[0],
        "run_id_b": run_ids[1],
        "class_id": change.class_id,
        "class_name": change.name,
        "iou_a": change.score.a,
        "iou_b": change.score.b,
        "difference": change.score.difference,
        "difference_low": low,
        "difference_high": high,
        "verdict": change.score.verdict,
        "images": change.images,
        "pixels_a": change.pixels_a,
        "pixels_b": change.pixels_b,
        "pixels_both": change.pixels_both,
        "agreement": change.agreement,
    }
