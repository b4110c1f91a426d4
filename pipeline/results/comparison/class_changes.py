"""Per-class results of a comparison: scores, their difference, and the agreement of the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.results.comparison.schemas import AGREEMENT, COMPARISON
from pipeline.results.comparison.score_differences import ScoreDifference, ScoreDifferences
from pipeline.results.statistics.scores import Matrix, iou_per_class, ratio

__all__ = ["ClassChange", "agreement_table", "class_changes", "comparison_table"]


@dataclass(frozen=True)
class ClassChange:
    """Result of a comparison for one class, or for the mean over the classes.

    Attributes:
        class_id: Class id; None for the mean.
        name: Class name; "mean" for the mean.
        score: IoU of both runs.
        images: Number of labeled images whose label holds the class; for the mean, of all labeled images.
        pixels_a: Number of pixels of the class in the masks of A; for the mean, of all pixels.
        pixels_b: Number of pixels of the class in the masks of B; for the mean, of all pixels.
        pixels_both: Number of pixels that have the class in both masks; for the mean, of all pixels that agree.
        agreement: Pixels in both masks divided by pixels in either mask, in [0, 1]; for the mean, the mean of these
            quotients. None where undefined.
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
    """Return the result of each class, by id, and the result of their mean.

    Args:
        names: Names of the C classes, by class id.
        scores: IoU of both runs, per class and mean.
        agreement: (C, C) pixel counts; rows are classes in A, columns are classes in B.
        images: (C,) number of images whose label holds each class.
        labelled: Number of compared images with a label.
    """
    # The IoU formula on masks of A and B: pixels in both over pixels in either.
    agreements = iou_per_class(agreement)
    defined = [value for value in agreements if value is not None]
    of_a = agreement.sum(axis=1)
    of_b = agreement.sum(axis=0)
    in_both = agreement.diagonal()
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
    # The mean's agreement is over the classes that occur in a mask of A or B.
    total = int(agreement.sum())
    both = int(agreement.trace())
    mean = ClassChange(None, "mean", scores.mean, labelled, total, total, both, ratio(sum(defined), len(defined)))
    return classes, mean


def comparison_table(run_ids: tuple[str, str], classes: Sequence[ClassChange], mean: ClassChange) -> pa.Table:
    """Return the table `comparison`: one row per class, by id, then the row of the mean.

    Args:
        run_ids: Run identifiers of A and B.
        classes: Results of the classes, by id.
        mean: Result of the mean.
    """
    return pa.Table.from_pylist([_row(run_ids, change) for change in (*classes, mean)], schema=COMPARISON)


def agreement_table(run_ids: tuple[str, str], names: Sequence[str], agreement: Matrix) -> pa.Table:
    """Return the table `agreement`: one row for each of the C × C pairs of a class in A and a class in B.

    Args:
        run_ids: Run identifiers of A and B.
        names: Names of the C classes, by class id.
        agreement: (C, C) pixel counts; rows are classes in A, columns are classes in B.
    """
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
    # Without an interval both ends are null.
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
