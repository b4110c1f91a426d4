"""Recount of rows of `predictions` from their masks, and from the labels where there are any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.labels import decode_mask
from pipeline.errors import PipelineError
from pipeline.results.sources import Sources
from pipeline.results.statistics.scores import (
    Matrix,
    class_counts,
    confusion_matrix,
    mean_iou,
    pixel_accuracy,
    pixel_counts,
)
from pipeline.results.tables import Run

__all__ = ["Recount"]

_ERROR_COLUMNS = ("error_stage", "error_type", "error_message")
_OK_COLUMNS = ("height", "width", "mask", "classes", "mean_confidence", "mean_entropy")


class Recount:
    """Checker that recomputes each image's numbers from its mask and label, and adds them up.

    Args:
        run: Run whose rows are checked.
        sources: Reader of the run's labels.
        problem: Callback that receives one sentence per problem.

    Attributes:
        images: Number of images whose masks were decoded.
        errors: Number of rows of failed images.
        labels_unread: Number of labels that cannot be read anymore; the counts of their images are not recomputed.
        confusion: (C, C) confusion matrix, summed over the recounted images with labels.
    """

    def __init__(self, run: Run, sources: Sources, problem: Callable[[str], None]) -> None:
        self._run = run
        self._sources = sources
        self._problem = problem
        self._classes = len(run.classes)
        self._ignore_label = int(run.success["ignore_label"])
        self.images = self.errors = self.labels_unread = 0
        self.confusion: Matrix = np.zeros((self._classes, self._classes), np.int64)

    def check(self, row: dict[str, Any], label_uri: str | None) -> None:
        """Check one row of `predictions`, and report its problems.

        Args:
            row: Row with all columns.
            label_uri: URI of the image's label, from the manifest; None without a label.
        """
        if self._check_status(row):
            self._recount(row, label_uri)

    def _check_status(self, row: dict[str, Any]) -> bool:
        """Check a row's status and its nulls; return whether the row is ok and has a mask and classes to recount."""
        uri = row["image_uri"]
        status = row["status"]
        if status not in ("ok", "error"):
            self._problem(f"{uri} has the status {status!r}, it must be ok or error")
            return False
        # Each status requires one set of columns and forbids the other.
        filled, empty = (_OK_COLUMNS, _ERROR_COLUMNS) if status == "ok" else (_ERROR_COLUMNS, _OK_COLUMNS)
        for name in filled:
            if row[name] is None:
                self._problem(f"{uri} is {status} but its {name} is null")
        for name in empty:
            if row[name] is not None:
                self._problem(f"{uri} is {status} but its {name} is not null")
        if status == "error":
            self.errors += 1
        return bool(status == "ok" and row["mask"] and row["classes"])

    def _recount(self, row: dict[str, Any], label_uri: str | None) -> None:
        """Recompute one image's numbers from its mask, and from its label if it has one, and compare them."""
        uri = row["image_uri"]
        try:
            mask = decode_mask(row["mask"]["bytes"])
        except (PipelineError, OSError, ValueError) as error:
            self._problem(f"the mask of {uri} cannot be decoded: {error}")
            return
        self.images += 1
        if mask.shape != (row["height"], row["width"]):
            self._problem(f"the mask of {uri} has the size {mask.shape}, its row says {(row['height'], row['width'])}")
        target = self._sources.read_label(label_uri)
        # Without the label, counts cannot be recomputed: predicted pixels count within its valid pixels only.
        if target is None and label_uri is not None:
            self.labels_unread += 1
            return
        try:
            expected, confusion = self._count(mask, target)
        except ValueError as error:
            self._problem(f"{uri}: {error}")
            return
        # Floats are compared exactly: the same formulas on the same counts give the same bits.
        for name, value in expected.items():
            if row[name] != value:
                self._problem(f"{name} of {uri} does not match its mask and label")
        if confusion is not None:
            self.confusion += confusion

    def _count(self, mask: NDArray[np.uint8], target: NDArray[np.uint8] | None) -> tuple[dict[str, Any], Matrix | None]:
        """Return the columns that a mask and its label imply, and the confusion matrix (None without a label).

        Raises:
            ValueError: If the mask and label differ in size, or a class id is out of range.
        """
        # `initial` allows an empty mask.
        if mask.max(initial=0) >= self._classes:
            raise ValueError(f"the mask contains {mask.max()}, but the highest class id is {self._classes - 1}")
        confusion = None
        if target is not None:
            confusion = confusion_matrix(target, mask, self._classes, self._ignore_label)
        counts = class_counts(self._run.classes, pixel_counts(mask, self._classes), confusion)
        scores: dict[str, Any] = {"classes": counts, "pixel_accuracy": None, "mean_iou": None}
        if confusion is not None:
            scores |= {"pixel_accuracy": pixel_accuracy(confusion), "mean_iou": mean_iou(confusion)}
        return scores, confusion
