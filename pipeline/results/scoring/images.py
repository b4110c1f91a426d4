"""The labelled images of a run counted one after the other, from their masks, confidence maps and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.ahead import ahead
from pipeline.data.labels import decode_mask
from pipeline.errors import IncompleteRun
from pipeline.results.scores import class_counts
from pipeline.results.scoring.counts import Counts, count
from pipeline.results.sources import Sources
from pipeline.results.tables import Run

__all__ = ["ScoredImage", "has_confidence_maps", "scored_parts"]


@dataclass(frozen=True)
class ScoredImage:
    """One image with a label.

    Attributes:
        uri: of the image.
        size: height and width, pixels.
        counts: None if the label cannot be read any more, or is not the one that the run counted.
    """

    uri: str
    size: tuple[int, int]
    counts: Counts | None


def scored_parts(run: Run) -> Iterator[list[ScoredImage]]:
    """The segmented images with labels, one list per file of `predictions`.

    A few images are worked on at a time, by threads: Pillow and numpy do most of it without Python's lock.

    Raises:
        IncompleteRun: if a row is not that of the manifest.
    """
    columns = ["image_uri", "status", "height", "width", "mask", "classes"]
    columns += ["confidence"] if has_confidence_maps(run) else []
    counter, labels, threads = _Counter(run), run.inputs(), os.cpu_count() or 1
    for part in run.tables("predictions/", columns):
        rows = _labelled(run, part, labels)
        work = ahead("score", counter.count, rows, count=2 * threads, threads=threads)
        yield [ScoredImage(row["image_uri"], (row["height"], row["width"]), done.result()) for (row, _), done in work]


def has_confidence_maps(run: Run) -> bool:
    """Whether the run was made with --confidence-maps."""
    return bool(run.info()["settings"].get("confidence_maps"))


class _Counter:
    def __init__(self, run: Run) -> None:
        self._names, self._ignore_label = run.classes, int(run.success["ignore_label"])
        self._sources = Sources(run)

    def count(self, item: tuple[dict[str, Any], str]) -> Counts | None:
        """None if the label is gone or another one; the run's own counts tell."""
        row, label_uri = item
        target = self._sources.read_label(label_uri)
        mask = decode_mask(row["mask"]["bytes"])
        if target is None or target.shape != mask.shape:
            return None
        confidence: NDArray[np.uint8] | None = None
        if row.get("confidence") is not None:
            confidence = decode_mask(row["confidence"]["bytes"])
        counts = count(target, mask, confidence, len(self._names), self._ignore_label)
        same = class_counts(self._names, counts.confusion.sum(axis=0), counts.confusion) == row["classes"]
        return counts if same else None


def _labelled(
    run: Run, part: pa.Table, labels: Iterator[tuple[str, str | None]]
) -> Iterator[tuple[dict[str, Any], str]]:
    # Row by row: a file's masks are kept compressed until their turn.
    for batch in part.to_batches(max_chunksize=1):
        (row,) = batch.to_pylist()
        expected, label_uri = next(labels, ("", None))
        if row["image_uri"] != expected:
            raise IncompleteRun(
                f"{row['image_uri']} in {run.output} is not the image that its manifest has there: "
                "see what jobs/verify.py says of the run"
            )
        if row["status"] == "ok" and label_uri is not None:
            yield row, label_uri
