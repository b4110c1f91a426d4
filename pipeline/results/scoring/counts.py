"""Counts of pixels, boundaries and calibration bins of images, read again from masks and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.concurrency import prefetch_map
from pipeline.data.labels import decode_mask
from pipeline.errors import IncompleteRun
from pipeline.results.scoring.measures import LEVELS, boundary_counts, calibration_counts
from pipeline.results.sources import Sources
from pipeline.results.statistics.scores import Matrix, class_counts, confusion_matrix
from pipeline.results.tables import Run

__all__ = ["Counts", "ScoredImage", "count", "has_confidence_maps", "scored_parts"]


@dataclass(frozen=True)
class Counts:
    """Pixel counts of one image, or sums over many.

    Attributes:
        confusion: (C, C) pixels by target and predicted class.
        boundary: (3, C) pixels of the boundary regions: of masks, of labels, of both with the same class.
        calibration: (C, 256, 2) pixels by predicted class, confidence, wrong and right; zeros without confidence maps.
    """

    confusion: Matrix
    boundary: NDArray[np.int64]
    calibration: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> Counts:
        """Return the counts of no image, which are zeros."""
        shapes = (classes, classes), (3, classes), (classes, LEVELS, 2)
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.confusion + other.confusion,
            self.boundary + other.boundary,
            self.calibration + other.calibration,
        )

    def sums(self) -> NDArray[np.int64]:
        """Return (5, C) pixels: intersection, target, predicted, and intersection and union of the boundary regions."""
        of_mask, of_label, both = self.boundary
        return np.stack(
            [
                self.confusion.diagonal(),
                self.confusion.sum(axis=1),
                self.confusion.sum(axis=0),
                both,
                of_mask + of_label - both,
            ]
        )


def count(
    target: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    classes: int,
    ignore_label: int,
) -> Counts:
    """Count the pixels of one image.

    Args:
        target: (H, W) class ids, or `ignore_label`.
        predicted: (H, W) class ids.
        confidence: (H, W) confidences, 255 times the winning probability; None: calibration is not counted.
        classes: Number of classes C.
        ignore_label: Value of pixels that are not counted.

    Raises:
        ValueError: If shapes differ or an id is out of range.
    """
    confusion = confusion_matrix(target, predicted, classes, ignore_label)
    boundary = boundary_counts(target, predicted, classes, ignore_label)
    if confidence is None:
        return Counts(confusion, boundary, Counts.zero(classes).calibration)
    return Counts(confusion, boundary, calibration_counts(confidence, predicted, target, classes, ignore_label))


@dataclass(frozen=True)
class ScoredImage:
    """Image with a label, and its pixel counts.

    Attributes:
        uri: URI of the image.
        size: Height and width in pixels.
        counts: Pixel counts; None if the label cannot be read any more, or is not the one that the run counted.
    """

    uri: str
    size: tuple[int, int]
    counts: Counts | None


def scored_parts(run: Run) -> Iterator[list[ScoredImage]]:
    """Yield the segmented images with labels, one list per file of `predictions`.

    Threads count a few images at a time, because Pillow and numpy do most of the work without Python's lock.

    Raises:
        IncompleteRun: If a row is not that of the manifest.
    """
    columns = ["image_uri", "status", "height", "width", "mask", "classes"]
    columns += ["confidence"] if has_confidence_maps(run) else []
    # One iterator over the manifest serves all parts, whose rows follow its order.
    counter = _Counter(run)
    labels = run.inputs()
    threads = os.cpu_count() or 1
    for part in run.tables("predictions/", columns):
        rows = _labelled(run, part, labels)
        work = prefetch_map("score", counter.count, rows, count=2 * threads, threads=threads)
        yield [ScoredImage(row["image_uri"], (row["height"], row["width"]), done.result()) for (row, _), done in work]


def has_confidence_maps(run: Run) -> bool:
    """Return whether the run was made with --confidence-maps."""
    return bool(run.info()["settings"].get("confidence_maps"))


class _Counter:
    def __init__(self, run: Run) -> None:
        self._names = run.classes
        self._ignore_label = int(run.success["ignore_label"])
        self._sources = Sources(run)

    def count(self, item: tuple[dict[str, Any], str]) -> Counts | None:
        """Count one image from (row, label URI); return None if the label is gone or has changed."""
        row, label_uri = item
        target = self._sources.read_label(label_uri)
        mask = decode_mask(row["mask"]["bytes"])
        if target is None or target.shape != mask.shape:
            return None
        confidence: NDArray[np.uint8] | None = None
        if row.get("confidence") is not None:
            confidence = decode_mask(row["confidence"]["bytes"])
        counts = count(target, mask, confidence, len(self._names), self._ignore_label)
        # The run's own counts reveal whether the label is still the one that it read.
        same = class_counts(self._names, counts.confusion.sum(axis=0), counts.confusion) == row["classes"]
        return counts if same else None


def _labelled(
    run: Run, part: pa.Table, labels: Iterator[tuple[str, str | None]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (row, label URI) of each segmented image with a label; check all rows against the manifest.

    Raises:
        IncompleteRun: If a row is not that of the manifest.
    """
    # Row by row: the masks of a file stay compressed in the table until their turn.
    for batch in part.to_batches(max_chunksize=1):
        (row,) = batch.to_pylist()
        expected, label_uri = next(labels, ("", None))
        if row["image_uri"] != expected:
            raise IncompleteRun(
                f"{row['image_uri']} in {run.output} does not match the manifest: run jobs/verify.py on the run"
            )
        if row["status"] == "ok" and label_uri is not None:
            yield row, label_uri
