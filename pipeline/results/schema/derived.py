"""Tables derived from `predictions`: scores per image and per class, confusion, and errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.results.schema.schemas import CLASS_SCORES, CONFUSION, ERRORS, IMAGE_SCORES
from pipeline.results.statistics.scores import Matrix, ratio

__all__ = ["ClassSums", "class_scores_table", "confusion_table", "errors_table", "image_scores_table"]


def image_scores_table(predictions: pa.Table) -> pa.Table:
    """Return the `image_scores` table of a part of `predictions`: one row per segmented image and class."""
    rows: list[dict[str, Any]] = []
    for row in predictions.select(["run_id", "image_uri", "classes"]).to_pylist():
        head = {"run_id": row["run_id"], "image_uri": row["image_uri"]}
        rows.extend({**head, **counts, **_scores_of(counts)} for counts in row["classes"] or ())
    return pa.Table.from_pylist(rows, schema=IMAGE_SCORES)


def errors_table(predictions: pa.Table) -> pa.Table:
    """Return the `errors` table of a part of `predictions`: one row per image that failed."""
    failed = predictions.filter(pc.equal(predictions["status"], "error"))
    return failed.select(ERRORS.names).cast(ERRORS)


def confusion_table(run_id: str, names: Sequence[str], confusion: Matrix, *, labelled: bool) -> pa.Table:
    """Return the `confusion` table: one row for each of the C × C pairs of target and predicted class.

    Args:
        run_id: Identifier of the run.
        names: Names of the C classes, by class id.
        confusion: (C, C) pixel counts; rows are target classes, columns are predicted classes.
        labelled: Whether any image is labeled. If not, all pixel counts are null.
    """
    rows = [
        {
            "run_id": run_id,
            "target_id": target,
            "target_name": names[target],
            "predicted_id": predicted,
            "predicted_name": names[predicted],
            "pixels": int(confusion[target, predicted]) if labelled else None,
        }
        for target, predicted in np.ndindex(len(names), len(names))
    ]
    return pa.Table.from_pylist(rows, schema=CONFUSION)


@dataclass
class ClassSums:
    """Accumulator of per-class sums over a run; tables are added one by one, so memory does not grow with the run.

    Labeled and unlabeled images have separate sums, because a union of sums over different images has no meaning.

    Attributes:
        classes: Number of classes C.
        labelled: Number of labeled images added so far.
    """

    classes: int
    labelled: int = 0

    def __post_init__(self) -> None:
        # (C, 4) sums; the columns are predicted, target, intersection and images.
        self._with_labels = np.zeros((self.classes, 4), np.int64)
        self._without_labels = np.zeros((self.classes, 4), np.int64)

    def add(self, image_scores: pa.Table) -> None:
        """Add the rows of a table that `image_scores_table` returned."""
        ids = image_scores["class_id"].to_numpy()
        predicted = image_scores["predicted_pixels"].to_numpy()
        has_label = pc.is_valid(image_scores["target_pixels"]).to_numpy()
        target = pc.fill_null(image_scores["target_pixels"], 0).to_numpy()
        inter = pc.fill_null(image_scores["intersection"], 0).to_numpy()
        # A class occurs in a labeled image if the label holds it, else if the mask does.
        for sums, chosen, occurs in (
            (self._with_labels, has_label, target > 0),
            (self._without_labels, ~has_label, predicted > 0),
        ):
            columns = np.stack([predicted, target, inter, occurs.astype(np.int64)], axis=1)
            np.add.at(sums, ids[chosen], columns[chosen])
        # Each image has one row per class.
        self.labelled += int(has_label.sum()) // max(1, self.classes)

    def rows(self) -> Iterable[dict[str, Any]]:
        """Yield the sums of each class, by id: over the labeled images if there are any, else over all images.

        Yields:
            Dictionary with `class_id`, the pixel counts `predicted`, `target` and `intersection`, and `images`, the
            number of images in which the class occurs. `target` and `intersection` are None without labels.
        """
        sums = self._with_labels if self.labelled else self._without_labels
        for class_id, (predicted, target, inter, images) in enumerate(sums.tolist()):
            yield {
                "class_id": class_id,
                "predicted": predicted,
                "target": target if self.labelled else None,
                "intersection": inter if self.labelled else None,
                "images": images,
            }


def class_scores_table(run_id: str, names: Sequence[str], sums: ClassSums) -> pa.Table:
    """Return the `class_scores` table: one row per class, over the whole run.

    Args:
        run_id: Identifier of the run.
        names: Class names, by class id.
        sums: Accumulated sums of all `image_scores` of the run.
    """
    rows = []
    for row in sums.rows():
        predicted = row["predicted"]
        target = row["target"]
        inter = row["intersection"]
        rows.append(
            {
                "run_id": run_id,
                "class_id": row["class_id"],
                "class_name": names[row["class_id"]],
                "predicted_pixels": predicted,
                "target_pixels": target,
                "intersection": inter,
                **_scores(predicted, target, inter),
                "precision": None if inter is None else ratio(inter, predicted),
                "recall": None if inter is None else ratio(inter, target),
                "images": row["images"],
            }
        )
    return pa.Table.from_pylist(rows, schema=CLASS_SCORES)


def _scores_of(counts: dict[str, Any]) -> dict[str, Any]:
    return _scores(counts["predicted_pixels"], counts["target_pixels"], counts["intersection"])


def _scores(predicted: int, target: int | None, intersection: int | None) -> dict[str, Any]:
    """Return `union`, `iou` and `dice` of one class; all are None without a label."""
    if target is None or intersection is None:
        return {"union": None, "iou": None, "dice": None}
    union = predicted + target - intersection
    return {
        "union": union,
        "iou": ratio(intersection, union),
        "dice": ratio(2 * intersection, predicted + target),
    }
