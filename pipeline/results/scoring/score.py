"""All scores of a committed run, written beside its tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.data.storage import Storage, join
from pipeline.results.bootstrap import Resampling
from pipeline.results.encoding import parquet_bytes
from pipeline.results.scoring.counts import Counts
from pipeline.results.scoring.images import ScoredImage, has_confidence_maps, scored_parts
from pipeline.results.scoring.rows import class_table, image_class_table, image_table, reliability_table, run_table
from pipeline.results.tables import Run

__all__ = ["LeftOut", "Scoring", "score_run"]

_FOLDER = "scores"
_EXAMPLES = 3


@dataclass
class LeftOut:
    """Images that cannot be scored: how many, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, uri: str) -> None:
        """Counts one more."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(uri)


@dataclass(frozen=True)
class Scoring:
    """What was scored.

    Attributes:
        folder: URI of the tables.
        run: the table of the whole run, one row per score.
        calibrated: whether the run has confidence maps, without which calibration is undefined.
        scored: images.
        left_out: images whose label is gone, or another one than the run counted.
    """

    folder: str
    run: pa.Table
    calibrated: bool
    scored: int
    left_out: LeftOut

    def text(self) -> str:
        """In words, a score a line."""
        lines = [
            f"{'images':27s}{self.scored:>8,}"
            + (f"  ({self.left_out.count:,} left out)" if self.left_out.count else "")
        ]
        lines += [_line(row) for row in self.run.to_pylist() if row["value"] is not None]
        if not self.scored:
            lines.append("no image was scored: the run has no labels (segment_bucket.py --labels), or all are gone")
        elif not self.calibrated:
            lines.append("calibration is undefined: the run was made without --confidence-maps")
        if self.left_out.count:
            more = ", …" if self.left_out.count > _EXAMPLES else ""
            examples = ", ".join(self.left_out.examples)
            lines.append(f"left out, since their label is gone or was changed: {examples}{more}")
        return "\n".join([*lines, f"{'written':27s}{self.folder}"])


def score_run(output: str, storage: Storage | None = None) -> Scoring:
    """Scores the labelled images of a run and writes the tables below ``<output>/scores/``, replacing older ones.

    Files of the run are read one at a time, and labels image by image: memory does not grow with the run.

    Args:
        output: the URI of a committed run.
        storage: how to read and write; None = default retries.

    Raises:
        IncompleteRun: if nothing is committed there.
        ConfigError: if the run has an unknown format.
        StorageError: if storage does not do its work.
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
    def __init__(self, run: Run) -> None:
        self._run = run
        self.calibrated = has_confidence_maps(run)
        self.scored = 0
        self.left_out = LeftOut()
        self._total, self._resampling = Counts.zero(len(run.classes)), Resampling()

    def add(self, images: list[ScoredImage]) -> None:
        """Takes the images of one file."""
        for image in images:
            if image.counts is None:
                self.left_out.add(image.uri)
                continue
            self.scored += 1
            self._total += image.counts
            self._resampling.add(image.counts.sums()[None].astype(float))

    def write(self) -> pa.Table:
        """Writes the tables of the whole run; returns the one of its scores."""
        run_id, names = self._run.success["run_id"], self._run.classes
        total, resampling = self._total, self._resampling
        calibrated = self.calibrated
        _write(self._run, "classes.parquet", class_table(run_id, names, total, resampling, calibrated=calibrated))
        _write(self._run, "reliability.parquet", reliability_table(run_id, names, total, calibrated=calibrated))
        table = run_table(run_id, total, self.scored, resampling, calibrated=calibrated)
        # Last of all: whoever finds it finds the others.
        _write(self._run, "run.parquet", table)
        return table


def _write(run: Run, path: str, table: pa.Table) -> None:
    run.storage.write(join(run.output, _FOLDER, path), parquet_bytes(table))


def _line(row: dict[str, float | str]) -> str:
    line = f"{row['score']:27s}{100 * float(row['value']):8.1f}"
    return line if row["low"] is None else f"{line}   {100 * float(row['low']):.1f}–{100 * float(row['high']):.1f}"
