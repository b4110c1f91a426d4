"""Verification of a committed run: its numbers are recomputed from the masks, and from the labels if readable.

The checks do not use the code that committed the run. The pixels are counted again; only the formulas of `scores` and
`derived` are shared. The checks cover these invariants:

- I1: each input appears exactly once and in order.
- I2: every listed file is whole, and no other file is present.
- I4: no row is missing.
- I6: the confusion matrix equals the sum of the image scores, and the matrix recomputed from the masks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.storage import Storage, join
from pipeline.errors import PipelineError
from pipeline.results.recount import Recount, changes_problems
from pipeline.results.schema.derived import (
    ClassSums,
    class_scores_table,
    confusion_table,
    errors_table,
    image_scores_table,
)
from pipeline.results.schema.encoding import part_order
from pipeline.results.schema.schemas import IMAGE_SCORES, PREDICTIONS
from pipeline.results.sources import Sources
from pipeline.results.statistics.scores import mean_iou, pixel_accuracy
from pipeline.results.tables import Run

__all__ = ["Verdict", "verify"]

_SHOWN = 20  # maximum number of problems that a verdict lists
_COUNTS = ("predicted_pixels", "target_pixels", "intersection")


@dataclass
class Verdict:
    """Result of a verification: the extent of the checks and the problems found.

    Attributes:
        problems: One sentence per problem; empty if the run is sound.
        images: Number of predicted images whose masks were recounted.
        errors: Number of images recorded as failed.
        labels_unread: Number of labels that cannot be read anymore; the counts of their images were not recomputed.
    """

    problems: list[str] = field(default_factory=list)
    images: int = 0
    errors: int = 0
    labels_unread: int = 0

    @property
    def ok(self) -> bool:
        """Return whether no problem was found."""
        return not self.problems

    def text(self) -> str:
        """Return the verdict in words, with one problem per line and at most 20 of them."""
        checked = f"{self.images} masks recounted, {self.errors} failed images"
        if self.labels_unread:
            checked += f", {self.labels_unread} labels can no longer be read (their counts were not checked)"
        if self.ok:
            return f"OK: {checked}"
        lines = [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  … and {len(self.problems) - _SHOWN} more")
        return "\n".join([f"NOT OK, {len(self.problems)} problems: {checked}", *lines])


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
    """Single pass over the files of a run, part by part."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sources = Sources(run)
        self._problems: list[str] = []
        self._rows = 0
        self._run_id = run.success["run_id"]
        self._sums = ClassSums(len(run.classes))
        self._recount = Recount(run, self._sources, self._problem)

    def run(self) -> Verdict:
        # 1. Files: the listing and the checksums.
        self._check_listing()
        self._check_files()
        # 2. Rows: recount each part of predictions beside the rows of image_scores that belong to it.
        uris: list[str] = []
        stored_scores = _Rows(self._read_all("image_scores/"))
        failed: list[pa.Table] = []
        for part in self._read_all("predictions/"):
            if missing := set(PREDICTIONS.names) - set(part.column_names):
                self._problem(f"a part of predictions lacks the columns {sorted(missing)}")
                return self._verdict()
            uris += part["image_uri"].to_pylist()
            failed.append(errors_table(part))
            self._check_part(part, stored_scores)
        # 3. Totals over the whole run.
        if stored_scores.take(1).num_rows:
            self._problem("image_scores has more rows than predictions requires")
        self._rows = len(uris)
        self._check_manifest(uris)
        self._problems += changes_problems(self._run, uris)
        self._check_totals(failed)
        return self._verdict()

    def _verdict(self) -> Verdict:
        counted = self._recount
        return Verdict(self._problems, counted.images, counted.errors, counted.labels_unread)

    def _problem(self, sentence: str) -> None:
        self._problems.append(sentence)

    def _check_listing(self) -> None:
        """Report every file beside the committed ones: a plain glob must see exactly what the commit lists."""
        listed = {entry["path"] for entry in self._run.success["files"]}
        for folder in ("predictions/", "image_scores/"):
            found = self._run.storage.list(join(self._run.output, folder))
            names = {folder + info.uri.rsplit("/", 1)[-1] for info in found}
            for extra in sorted(names - listed):
                self._problem(f"{extra} is not listed in _SUCCESS.json, but a glob of {folder} reads it")

    def _check_files(self) -> None:
        """Compare each listed file with the length, SHA-256 and row count of its entry in _SUCCESS.json."""
        for entry in self._run.success["files"]:
            data = self._read(entry["path"])
            if data is None:
                self._problem(f"{entry['path']} is listed in _SUCCESS.json but cannot be read")
            elif hashlib.sha256(data).hexdigest() != entry["sha256"] or len(data) != entry["bytes"]:
                self._problem(f"{entry['path']} differs from the committed file (SHA-256 or length)")
            elif entry["path"].endswith(".parquet") and (rows := _table(data).num_rows) != entry["rows"]:
                self._problem(f"{entry['path']} has {rows} rows, _SUCCESS.json says {entry['rows']}")

    def _check_manifest(self, uris: list[str]) -> None:
        """Report inputs that are missing from `uris` (the images of predictions), repeated, unknown or out of order."""
        expected = self._sources.manifest["image_uri"].to_pylist()
        stated = self._run.info()["manifest"]["rows"]
        if stated != len(expected):
            self._problem(f"the manifest has {len(expected)} rows, run.json says {stated}")
        counts = Counter(uris)
        for uri in expected:
            if counts[uri] != 1:
                self._problem(f"{uri} appears {counts[uri]} times in predictions instead of once")
        for uri in sorted(set(counts) - set(expected)):
            self._problem(f"{uri} is in predictions but not in the manifest")
        # A different order is a problem of its own only if the images are the same.
        if uris != expected and Counter(expected) == counts:
            self._problem("predictions is not in the order of the manifest")

    def _check_part(self, part: pa.Table, stored_scores: _Rows) -> None:
        for row in part.to_pylist():
            if row["run_id"] != self._run_id:
                self._problem(f"{row['image_uri']} belongs to run {row['run_id']}, not {self._run_id}")
            self._recount.check(row)
        # image_scores has one row per segmented image and class, in the order of predictions.
        expected = image_scores_table(part)
        self._sums.add(expected)
        stored = stored_scores.take(expected.num_rows)
        if not _same(stored, expected):
            uris = f"{part['image_uri'][0]} … {part['image_uri'][-1]}" if part.num_rows else "no image"
            self._problem(f"image_scores does not match predictions ({uris})")

    def _check_totals(self, failed: list[pa.Table]) -> None:
        success = self._run.success
        names = self._run.classes
        if not _same(self._stored("errors.parquet"), pa.concat_tables(failed) if failed else None):
            self._problem("errors does not match predictions")
        counted = {"images": self._rows, "errors": self._recount.errors}
        for name, value in counted.items():
            if success[name] != value:
                self._problem(f"_SUCCESS.json says {name} = {success[name]}, predictions has {value}")
        # Without all labels, the totals cannot be recomputed from the masks.
        if self._recount.labels_unread:
            self._check_margins()
            return
        # Scores must be equal to the bit: both sides apply the same formulas to whole numbers.
        for name, score in (("mean_iou", mean_iou), ("pixel_accuracy", pixel_accuracy)):
            if success[name] != score(self._recount.confusion):
                self._problem(f"_SUCCESS.json says {name} = {success[name]}, masks and labels give another value")
        if not _same(self._stored("class_scores.parquet"), class_scores_table(self._run_id, names, self._sums)):
            self._problem("class_scores does not match the masks and labels")
        labelled = self._sums.labelled > 0
        confusion = confusion_table(self._run_id, names, self._recount.confusion, labelled=labelled)
        if not _same(self._stored("confusion.parquet"), confusion):
            self._problem("confusion does not match the masks and labels")

    def _check_margins(self) -> None:
        """Check the confusion matrix without all labels: its diagonal and margins must equal sums of image scores."""
        stored = self._run.confusion().to_numpy()
        sums = self._run.image_scores()[["class_id", *_COUNTS]]
        sums = sums[sums["target_pixels"].notna()].groupby("class_id").sum()
        if sums.empty:
            return
        pairs = {"intersection": np.diagonal(stored), "target_pixels": stored.sum(axis=1)}
        # (C, C) matrix: rows are target classes, so columns sum to predicted pixels.
        pairs["predicted_pixels"] = stored.sum(axis=0)
        for name, expected in pairs.items():
            if sums[name].tolist() != expected.tolist():
                self._problem(f"confusion does not match the sum of {name} over image_scores")

    def _stored(self, path: str) -> pa.Table | None:
        return next(self._read_all(path), None)

    def _read_all(self, prefix: str) -> Iterator[pa.Table]:
        for path in sorted((entry["path"] for entry in self._run.success["files"]), key=part_order):
            if path.startswith(prefix) and (data := self._read(path)) is not None:
                yield _table(data)

    def _read(self, path: str) -> bytes | None:
        try:
            return self._run.storage.read(join(self._run.output, path))
        except PipelineError:
            return None


def _table(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


class _Rows:
    """Reader that takes chunks of any size from the rows of a sequence of tables."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest: pa.Table = IMAGE_SCORES.empty_table()

    def take(self, rows: int) -> pa.Table:
        """Return the next `rows` rows, or fewer at the end."""
        while self._rest.num_rows < rows and (table := next(self._tables, None)) is not None:
            self._rest = pa.concat_tables([self._rest, table.select(self._rest.column_names)])
        taken = self._rest.slice(0, rows)
        self._rest = self._rest.slice(rows)
        return taken


def _same(stored: pa.Table | None, expected: pa.Table | None) -> bool:
    """Return whether two tables are equal in names, types and values.

    Doubles are compared exactly, because the same formulas give the same bits. If a table is None, the result is
    whether `stored` is None or has no rows.
    """
    if stored is None or expected is None:
        return stored is None or stored.num_rows == 0
    return bool(stored.combine_chunks().equals(expected.combine_chunks()))
