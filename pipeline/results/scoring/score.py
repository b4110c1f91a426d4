"""Scoring of a committed run: all scores, written beside its tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.data.storage import Storage, join
from pipeline.results.schema.encoding import parquet_bytes, read_parquet
from pipeline.results.scoring.counts import Counts, ScoredImage, has_confidence_maps, scored_parts
from pipeline.results.scoring.measures import Bin
from pipeline.results.scoring.rows import class_table, image_class_table, image_table, reliability_table, run_table
from pipeline.results.statistics.bootstrap import Interval, Resampling
from pipeline.results.tables import Run

__all__ = ["LeftOut", "Scoring", "StoredScore", "StoredScores", "score_run", "stored_scores"]


@dataclass(frozen=True)
class StoredScore:
    """Score of the whole run.

    Attributes:
        name: Name of the score.
        value: Value, 0–1; None if it is undefined.
        interval: 95% interval of the value; None if it is undefined.
    """

    name: str
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class StoredScores:
    """Stored scores of a run.

    Attributes:
        scores: Scores of the whole run, in the order of the table.
        curve: Reliability curve of all classes together; empty without confidence maps.
        images: Number of scored images.
    """

    scores: tuple[StoredScore, ...]
    curve: tuple[Bin, ...]
    images: int

    @property
    def calibration_error(self) -> float | None:
        """Return the expected calibration error, 0–1; None if it is undefined."""
        return next((each.value for each in self.scores if each.name == "expected_calibration_error"), None)


def stored_scores(run: Run) -> StoredScores | None:
    """Read the stored scores of a run; None if it was not scored, or the scores are those of another run."""
    folder = join(run.output, "scores")
    # This table is written last: without it, the others may be incomplete.
    if not run.storage.exists(join(folder, "run.parquet")):
        return None
    rows = read_parquet(run.storage, join(folder, "run.parquet")).to_pylist()
    if not rows or rows[0]["run_id"] != run.success["run_id"]:
        return None
    scores = (StoredScore(row["score"], row["value"], _interval(row["low"], row["high"])) for row in rows)
    bins = read_parquet(run.storage, join(folder, "reliability.parquet")).to_pylist()
    curve = (
        Bin(row["confidence_low"], row["confidence_high"], row["pixels"], row["mean_confidence"], row["accuracy"])
        for row in bins
        if row["class_id"] is None
    )
    return StoredScores(tuple(scores), tuple(curve), rows[0]["images"])


def _interval(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else (low, high)


_FOLDER = "scores"
# Number of left-out images that the text lists.
_EXAMPLES = 3


@dataclass
class LeftOut:
    """Images that cannot be scored.

    Attributes:
        count: Number of the images.
        examples: URIs of the first three.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, uri: str) -> None:
        """Count an image, and keep its URI if it is one of the first."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(uri)


@dataclass(frozen=True)
class Scoring:
    """Result of scoring a run.

    Attributes:
        folder: URI of the folder of the tables.
        run: Table of the whole run, one row per score.
        calibrated: Whether the run has confidence maps; without them, calibration is undefined.
        scored: Number of scored images.
        left_out: Images whose label is gone, or is not the one that the run counted.
    """

    folder: str
    run: pa.Table
    calibrated: bool
    scored: int
    left_out: LeftOut

    def text(self) -> str:
        """Return the result as text for a terminal, one score per line, in percent with its 95% interval."""
        lines = [
            f"{'images':27s}{self.scored:>8,}"
            + (f"  ({self.left_out.count:,} left out)" if self.left_out.count else "")
        ]
        lines += [_line(row) for row in self.run.to_pylist() if row["value"] is not None]
        if not self.scored:
            lines.append("no image was scored: the run has no labels (segment_bucket.py --labels) or no usable ones")
        elif not self.calibrated:
            lines.append("calibration is undefined: the run was made without --confidence-maps")
        if self.left_out.count:
            more = ", …" if self.left_out.count > _EXAMPLES else ""
            examples = ", ".join(self.left_out.examples)
            lines.append(f"left out because the label is missing or was changed: {examples}{more}")
        return "\n".join([*lines, f"{'written':27s}{self.folder}"])


def score_run(output: str, storage: Storage | None = None) -> Scoring:
    """Score the labeled images of a run, and write the tables below `<output>/scores/`, replacing older ones.

    Files of the run are read one at a time, and labels image by image, so memory does not grow with the run.

    Args:
        output: URI of a committed run.
        storage: Storage of the run and its labels; None: default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`, or a row is not that of the manifest.
        ConfigError: If the run has an unknown format.
        StorageError: If storage fails.
    """
    run = Run(output, storage)
    sums = _Sums(run)
    for number, images in enumerate(scored_parts(run)):
        sums.add(images)
        name = f"part-{number:06d}.parquet"
        run_id = run.success["run_id"]
        _write(run, f"images/{name}", image_table(run_id, images, calibrated=sums.calibrated))
        _write(run, f"image_classes/{name}", image_class_table(run_id, run.classes, images))
    table = sums.write()
    return Scoring(join(run.output, _FOLDER), table, sums.calibrated, sums.scored, sums.left_out)


class _Sums:
    """Sums over the scored images, from which the tables of the whole run follow.

    Args:
        run: Run that is scored.

    Attributes:
        calibrated: Whether the run has confidence maps.
        scored: Number of scored images so far.
        left_out: Images that cannot be scored.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.calibrated = has_confidence_maps(run)
        self.scored = 0
        self.left_out = LeftOut()
        self._total = Counts.zero(len(run.classes))
        self._resampling = Resampling()

    def add(self, images: list[ScoredImage]) -> None:
        """Add the images of one file of `predictions`."""
        for image in images:
            if image.counts is None:
                self.left_out.add(image.uri)
                continue
            self.scored += 1
            self._total += image.counts
            self._resampling.add(image.counts.sums()[None].astype(float))

    def write(self) -> pa.Table:
        """Write the tables of the whole run; return the table of its scores."""
        run_id = self._run.success["run_id"]
        names = self._run.classes
        total = self._total
        resampling = self._resampling
        calibrated = self.calibrated
        _write(self._run, "classes.parquet", class_table(run_id, names, total, resampling, calibrated=calibrated))
        _write(self._run, "reliability.parquet", reliability_table(run_id, names, total, calibrated=calibrated))
        table = run_table(run_id, total, self.scored, resampling, calibrated=calibrated)
        # Written last: if this table exists, the others do too.
        _write(self._run, "run.parquet", table)
        return table


def _write(run: Run, path: str, table: pa.Table) -> None:
    run.storage.write(join(run.output, _FOLDER, path), parquet_bytes(table))


def _line(row: dict[str, float | str]) -> str:
    line = f"{row['score']:27s}{100 * float(row['value']):8.1f}"
    return line if row["low"] is None else f"{line}   {100 * float(row['low']):.1f}–{100 * float(row['high']):.1f}"
