"""Running sums of a comparison, updated image by image, and differences of IoU with paired bootstrap intervals."""

from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.results.comparison.pairs import Pair
from pipeline.results.comparison.schemas import CHANGED_IMAGES, ONLY_ONE
from pipeline.results.statistics.bootstrap import Interval, Resampling, class_ious, interval, mean_ious
from pipeline.results.statistics.scores import Floats, Matrix, ratio
from pipeline.results.statistics.top import Greatest

__all__ = [
    "HIGHER",
    "LOWER",
    "NOT_SHOWN",
    "Change",
    "ScoreDifference",
    "ScoreDifferences",
    "TableFile",
    "Tally",
    "score_differences",
]

# Rows of one row group, which are held in memory until they are compressed.
_GROUP_ROWS = 10_000


class TableFile:
    """Writer of one Parquet file on the local disk; the same rows always give the same bytes.

    Args:
        schema: Arrow schema of the rows.

    Attributes:
        rows: Number of rows added so far.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        handle, name = tempfile.mkstemp(prefix="compare-", suffix=".parquet")
        os.close(handle)
        self._path = Path(name)
        # The file is removed with this object, at the latest when the process exits.
        weakref.finalize(self, self._path.unlink, missing_ok=True)
        self._writer = pq.ParquetWriter(name, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, given as values by column name."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> Path:
        """Complete the file and return its path; no row can be added afterwards."""
        self._write()
        self._writer.close()
        return self._path

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


@dataclass(frozen=True)
class Change:
    """Change of one image from A to B.

    Attributes:
        uri: URI of the image.
        version: Version (ETag) of the image; None if there is none.
        position_a: Index of the image's row in run A, from 0.
        position_b: Index of the image's row in run B, from 0.
        pixels: Number of pixels of the image.
        changed_pixels: Number of pixels whose class in B differs from that in A.
        mean_iou_a: Mean IoU of the image in A, in [0, 1]; None unless both runs have the same label of it.
        mean_iou_b: Mean IoU of the image in B, in [0, 1]; None unless both runs have the same label of it.
    """

    uri: str
    version: str | None
    position_a: int
    position_b: int
    pixels: int
    changed_pixels: int
    mean_iou_a: float | None
    mean_iou_b: float | None

    @property
    def share(self) -> float:
        """Return the fraction of pixels whose class changed, in [0, 1]."""
        return self.changed_pixels / self.pixels

    @property
    def gain(self) -> float | None:
        """Return the gain of mean IoU from A to B, in [-1, 1]; None if it is unknown."""
        if self.mean_iou_a is None or self.mean_iou_b is None:
            return None
        return self.mean_iou_b - self.mean_iou_a


class Tally:
    """Accumulator of sums over the compared images, and writer of the tables with one row per image.

    Args:
        run_ids: Run identifiers of A and B.
        classes: Number of classes C.
        shown: Maximum number of images of each kind to keep for pictures.

    Attributes:
        compared: Number of images that both runs segmented.
        labelled: Number of compared images with the same label in both runs.
        relabelled: Number of compared images whose label in B differs from that in A.
        only_a: Number of images that A segmented and B did not.
        only_b: Number of images that B segmented and A did not.
        neither: Number of images that neither run segmented.
        agreement: (C, C) pixel counts; rows are classes in A, columns are classes in B.
        sums: (2, 2, C) pixel counts: runs A and B, intersections and unions, classes.
        images: (C,) number of labeled images whose label holds each class.
        changed: Images with the greatest share of changed pixels.
        gained: Images with the greatest gain of mean IoU.
        lost: Images with the greatest loss of mean IoU.
    """

    def __init__(self, run_ids: tuple[str, str], classes: int, shown: int) -> None:
        self._runs = {"run_id_a": run_ids[0], "run_id_b": run_ids[1]}
        self.compared = self.labelled = self.relabelled = self.only_a = self.only_b = self.neither = 0
        self.agreement: Matrix = np.zeros((classes, classes), np.int64)
        self.sums: Floats = np.zeros((2, 2, classes))
        self.images = np.zeros(classes, np.int64)
        self.changed, self.gained, self.lost = (Greatest[Change](shown) for _ in range(3))
        self._resampling = Resampling()
        self._changed_images = TableFile(CHANGED_IMAGES)
        self._only_one = TableFile(ONLY_ONE)

    def add(self, pair: Pair, agreement: Matrix | None) -> None:
        """Add the next image.

        Args:
            pair: Rows of the image in both runs.
            agreement: (C, C) pixel counts; None unless both runs segmented the image.
        """
        if agreement is None:
            self._add_failed(pair)
            return
        self.compared += 1
        self.agreement += agreement
        # Scores are comparable only if both runs used the same label.
        if pair.counts is not None:
            self._add_scores(pair, pair.counts)
        elif pair.a.label_uri or pair.b.label_uri:
            self.relabelled += 1
        self._add_change(pair, agreement)

    def resampled(self) -> Floats:
        """Return `sums` in each of R bootstrap resamples, (R, 2, 2, C); zeros of shape (R,) if no image is labeled."""
        return self._resampling.sums()

    def files(self) -> dict[str, Path]:
        """Return the tables with one row per image as local Parquet files, by file name; call it once, at the end.

        The files disappear with this object.
        """
        tables = {"changed_images.parquet": self._changed_images, "only_one.parquet": self._only_one}
        return {name: table.finish() for name, table in tables.items()}

    def _add_scores(self, pair: Pair, counts: Floats) -> None:
        self.labelled += 1
        self.sums += counts
        if pair.a.targets is not None:
            self.images += pair.a.targets > 0
        # (2, 2, C) -> (1, 2, 2, C). Both runs in one array, so that each resample weights them alike.
        self._resampling.add(counts[None])

    def _add_change(self, pair: Pair, agreement: Matrix) -> None:
        # The diagonal holds the pixels that did not change.
        pixels = int(agreement.sum())
        scores = (pair.a.mean_iou, pair.b.mean_iou) if pair.counts is not None else (None, None)
        positions = (pair.a.position, pair.b.position)
        change = Change(pair.uri, pair.a.version, *positions, pixels, pixels - int(agreement.trace()), *scores)
        self._changed_images.add(self._runs | _change_row(change))
        self.changed.add(change.share, change)
        if change.gain is not None:
            self.gained.add(change.gain, change)
            self.lost.add(-change.gain, change)

    def _add_failed(self, pair: Pair) -> None:
        self.only_a += pair.a.ok
        self.only_b += pair.b.ok
        self.neither += not (pair.a.ok or pair.b.ok)
        if pair.a.ok or pair.b.ok:
            self._only_one.add(self._runs | _only_one_row(pair))


def _change_row(change: Change) -> dict[str, Any]:
    return {
        "image_uri": change.uri,
        "image_version": change.version,
        "pixels": change.pixels,
        "changed_pixels": change.changed_pixels,
        "changed_share": ratio(change.changed_pixels, change.pixels),
        "mean_iou_a": change.mean_iou_a,
        "mean_iou_b": change.mean_iou_b,
        "mean_iou_difference": change.gain,
    }


def _only_one_row(pair: Pair) -> dict[str, Any]:
    failed = pair.b if pair.a.ok else pair.a
    error = dict(zip(("error_stage", "error_type", "error_message"), failed.error, strict=True))
    return {
        "image_uri": pair.uri,
        "image_version": pair.a.version,
        "segmented_in": "a" if pair.a.ok else "b",
        **error,
    }


HIGHER = "higher"
LOWER = "lower"
NOT_SHOWN = "no difference shown"


@dataclass(frozen=True)
class ScoreDifference:
    """One score of two runs, in [0, 1]; None where undefined.

    Attributes:
        a: Score of run A.
        b: Score of run B.
        interval: 95% interval of b - a; None if too few images have the class.
    """

    a: float | None
    b: float | None
    interval: Interval | None

    @property
    def difference(self) -> float | None:
        """Return b - a, in [-1, 1]; None if a score is undefined."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def verdict(self) -> str | None:
        """Return whether B is higher or lower, or no difference is shown; None without an interval."""
        if self.interval is None:
            return None
        # A difference is shown only if the interval excludes 0.
        low, high = self.interval
        return HIGHER if low > 0 else LOWER if high < 0 else NOT_SHOWN


@dataclass(frozen=True)
class ScoreDifferences:
    """Score differences of the classes and of the mean.

    Attributes:
        classes: IoU of each class in both runs, by class id.
        mean: Mean IoU of both runs.
    """

    classes: tuple[ScoreDifference, ...]
    mean: ScoreDifference


def score_differences(sums: Floats, resampled: Floats) -> ScoreDifferences:
    """Return the IoU of both runs per class and on average, with the intervals of their differences.

    Args:
        sums: (2, 2, C) sums over all labeled images: runs A and B, intersections and unions, classes.
        resampled: (R, 2, 2, C) sums in each of R resamples; (R,) if no image is labeled.
    """
    # (2, C) and (2,).
    ious = class_ious(sums)
    means = mean_ious(sums)
    classes = ious.shape[-1]
    if resampled.ndim == 1:
        intervals: list[Interval | None] = [None] * (classes + 1)
    else:
        # (R, 2, C + 1) scores of A and B, the mean last -> (R, C + 1) differences.
        columns = np.concatenate([class_ious(resampled), mean_ious(resampled)[..., None]], axis=-1)
        differences = columns[:, 1] - columns[:, 0]
        intervals = [interval(differences[:, each]) for each in range(classes + 1)]
    scores = np.concatenate([ious, means[:, None]], axis=-1)
    found = [
        ScoreDifference(_defined(a), _defined(b), between) for a, b, between in zip(*scores, intervals, strict=True)
    ]
    return ScoreDifferences(tuple(found[:-1]), found[-1])


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
