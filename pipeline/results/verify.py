"""Verification of a committed run: its numbers are recomputed from the masks, and from the labels if readable.

One batch of rows is in memory at a time, so memory does not grow with the number of images. The checks do not use the
code that committed the run. The pixels are counted again; only the formulas of `scores` and
`derived` are shared. The checks cover these invariants:

- I1: each input appears exactly once and in order.
- I2: every listed file is whole, and no other file is present.
- I4: no row is missing.
- I6: the confusion matrix equals the sum of the image scores, and the matrix recomputed from the masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.storage import Storage
from pipeline.results.file_checks import FileChecks, Rows
from pipeline.results.manifest_check import ManifestCheck, changes_problems
from pipeline.results.recount import Recount
from pipeline.results.schema.derived import (
    ClassSums,
    class_scores_table,
    confusion_table,
    errors_table,
    image_scores_table,
)
from pipeline.results.schema.schemas import CONFUSION, ERRORS, IMAGE_SCORES
from pipeline.results.sources import Sources
from pipeline.results.statistics.scores import Matrix, mean_iou, pixel_accuracy
from pipeline.results.tables import Run

__all__ = ["Verdict", "verify"]

_SHOWN = 20  # maximum number of problems that a verdict lists


@dataclass
class Verdict:
    """Result of a verification: the extent of the checks and the problems found.

    Attributes:
        problems: One sentence for each of the first 20 problems; empty if the run is sound.
        found: Number of all problems.
        images: Number of predicted images whose masks were recounted.
        errors: Number of images recorded as failed.
        labels_unread: Number of labels that cannot be read anymore; the counts of their images were not recomputed.
    """

    problems: list[str] = field(default_factory=list)
    found: int = 0
    images: int = 0
    errors: int = 0
    labels_unread: int = 0

    def add(self, problem: str) -> None:
        """Count a problem, and keep its sentence if it is one of the first 20."""
        self.found += 1
        if self.found <= _SHOWN:
            self.problems.append(problem)

    @property
    def ok(self) -> bool:
        """Return whether no problem was found."""
        return not self.found

    def text(self) -> str:
        """Return the verdict in words, with one problem per line and at most 20 of them."""
        checked = f"{self.images} masks recounted, {self.errors} failed images"
        if self.labels_unread:
            checked += f", {self.labels_unread} labels can no longer be read (their counts were not checked)"
        if self.ok:
            return f"OK: {checked}"
        lines = [f"  {problem}" for problem in self.problems]
        if self.found > _SHOWN:
            lines.append(f"  … and {self.found - _SHOWN} more")
        return "\n".join([f"NOT OK, {self.found} problems: {checked}", *lines])


def verify(output: str, storage: Storage | None = None) -> Verdict:
    """Verify a committed run.

    Args:
        output: URI of the run.
        storage: Storage to read from; None for the default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        ConfigError: If the run has an unknown table format, or lists files outside its folder.
        StorageError: If storage cannot be reached.
    """
    return _Verification(Run(output, storage)).run()


class _Verification:
    """Single pass over the files of a run, batch by batch."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._verdict = Verdict()
        self._problem = self._verdict.add
        self._run_id = run.success["run_id"]
        self._sums = ClassSums(len(run.classes))
        self._recount = Recount(run, Sources(run), self._problem)
        self._files = FileChecks(run, self._problem)

    def run(self) -> Verdict:
        # Rows can be compared only if their tables have the columns.
        if self._files.check():
            self._check_rows()
            self._check_totals()
        self._verdict.images = self._recount.images
        self._verdict.errors = self._recount.errors
        self._verdict.labels_unread = self._recount.labels_unread
        return self._verdict

    def _check_rows(self) -> None:
        """Check predictions row by row beside the tables that have a row for each image."""
        images = ManifestCheck(self._files.tables("manifest/"), self._problem)
        stated = self._run.info()["manifest"]["rows"]
        if stated != images.inputs:
            self._problem(f"the manifest has {images.inputs} rows, run.json says {stated}")
        scores = self._files.rows("image_scores/", IMAGE_SCORES)
        errors = self._files.rows("errors.parquet", ERRORS)
        for part in self._files.tables("predictions/"):
            for row in part.to_pylist():
                label_uri = images.count(row["image_uri"])
                if row["run_id"] != self._run_id:
                    self._problem(f"{row['image_uri']} belongs to run {row['run_id']}, not {self._run_id}")
                self._recount.check(row, label_uri)
            # Both tables have their rows in the order of predictions.
            expected = image_scores_table(part)
            # The recount reports class ids out of range, which have no sum.
            if set(expected["class_id"].to_pylist()) <= set(range(len(self._run.classes))):
                self._sums.add(expected)
            self._check_derived("image_scores", scores, expected, part)
            self._check_derived("errors", errors, errors_table(part), part)
        for name, rows in (("image_scores", scores), ("errors", errors)):
            if rows.take(1).num_rows:
                self._problem(f"{name} has more rows than predictions requires")
        images.finish()
        if self._run.success["images"] != images.rows:
            self._problem(f"_SUCCESS.json says images = {self._run.success['images']}, predictions has {images.rows}")
        changes = self._files.tables("changes/")
        manifest = self._files.tables("manifest/")
        for problem in changes_problems(self._run.success.get("since"), changes, manifest):
            self._problem(problem)

    def _check_derived(self, name: str, rows: Rows, expected: pa.Table, part: pa.Table) -> None:
        """Compare the next rows of a table with those that follow from a part of predictions."""
        if not _same(rows.take(expected.num_rows), expected):
            self._problem(f"{name} does not match predictions ({part['image_uri'][0]} … {part['image_uri'][-1]})")

    def _check_totals(self) -> None:
        success = self._run.success
        names = self._run.classes
        if success["errors"] != self._recount.errors:
            self._problem(f"_SUCCESS.json says errors = {success['errors']}, predictions has {self._recount.errors}")
        matrix = self._recount.confusion
        # Without all labels, the matrix cannot be recomputed: the stored one must agree with the image scores.
        if self._recount.labels_unread:
            matrix = self._stored_confusion()
            self._check_margins(matrix)
        # Scores must be equal to the bit: both sides apply the same formulas to whole numbers.
        for name, score in (("mean_iou", mean_iou), ("pixel_accuracy", pixel_accuracy)):
            if success[name] != score(matrix):
                self._problem(f"_SUCCESS.json says {name} = {success[name]}, masks and labels give another value")
        tables = {
            "class_scores": class_scores_table(self._run_id, names, self._sums),
            "confusion": confusion_table(self._run_id, names, matrix, labelled=self._sums.labelled > 0),
        }
        for name, expected in tables.items():
            # One row more than expected shows whether there are too many.
            stored = self._files.rows(f"{name}.parquet", expected.schema).take(expected.num_rows + 1)
            if not _same(stored, expected):
                self._problem(f"{name} does not match the masks and labels")

    def _stored_confusion(self) -> Matrix:
        """Return the stored (C, C) confusion matrix; zeros if the table does not have C × C rows."""
        classes = len(self._run.classes)
        stored = self._files.rows("confusion.parquet", CONFUSION).take(classes**2)
        if stored.num_rows < classes**2:
            return np.zeros((classes, classes), np.int64)
        return pc.fill_null(stored["pixels"], 0).to_numpy().reshape(classes, classes)

    def _check_margins(self, matrix: Matrix) -> None:
        """Check that the diagonal and the margins of the (C, C) confusion matrix equal sums of image scores."""
        if not self._sums.labelled:
            return
        # Rows are target classes, so columns sum to predicted pixels.
        margins = {"intersection": matrix.diagonal(), "target": matrix.sum(axis=1), "predicted": matrix.sum(axis=0)}
        sums = list(self._sums.rows())
        for name, values in margins.items():
            if [row[name] for row in sums] != values.tolist():
                self._problem(f"confusion does not match the sum of the {name} pixels over image_scores")


def _same(stored: pa.Table, expected: pa.Table) -> bool:
    """Return whether two tables are equal in names, types and values.

    Doubles are compared exactly, because the same formulas give the same bits.
    """
    return bool(stored.combine_chunks().equals(expected.combine_chunks()))
