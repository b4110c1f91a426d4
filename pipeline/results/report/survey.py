"""Single pass over the light columns of `predictions`: images to show, spread of the scores, and failure reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.results.report.distribution import Distribution
from pipeline.results.statistics.top import Floats, Positions, Top
from pipeline.results.tables import Run

__all__ = ["EXAMPLES", "Reason", "Survey", "survey"]

EXAMPLES = 10  # failed images shown per reason
_SAMPLE = 10_000  # size of the sample that represents the run, because not all images fit in memory
_ERROR = ("error_stage", "error_type", "error_message")
_COLUMNS = ("status", *_ERROR, "mean_iou", "mean_confidence", "mean_entropy", "seconds")


@dataclass
class Reason:
    """Failure reason with the number of images that failed for it.

    Attributes:
        stage: Stage at which the images failed, from `error_stage`.
        kind: Kind of error, from `error_type`.
        count: Number of images that failed for this reason.
        examples: Position and message of the first images, at most 10.
    """

    stage: str
    kind: str
    count: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)


class Survey:
    """Accumulator of a report's statistics over all images, in memory that does not grow with their number.

    Args:
        shown: Maximum number of images to keep in each of `worst`, `best`, `uncertain` and `random`.
        seed: Seed of the random choice.

    Attributes:
        images: Number of predicted images so far.
        seconds: Total time of these images from fetch to encode, seconds.
        scores: Distribution of their mean IoU; empty without labels.
        confidences: Distribution of their mean confidence.
        reasons: Failure reasons, by stage and type.
        worst: Images with the lowest mean IoU.
        best: Images with the highest mean IoU.
        uncertain: Images with the highest mean entropy.
        random: Images drawn at random.
        sample: Up to 10,000 images drawn at random, with their mean IoU as values.
    """

    def __init__(self, shown: int, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        self._position = 0
        self.images = 0
        self.seconds = 0.0
        self.scores = Distribution()
        self.confidences = Distribution()
        self.reasons: dict[tuple[str, str], Reason] = {}
        self.worst, self.best, self.uncertain, self.random = (Top(shown) for _ in range(4))
        self.sample = Top(_SAMPLE)

    @property
    def spread(self) -> Distribution:
        """Return the distribution of mean IoU, or that of mean confidence as a substitute without labels."""
        return self.scores if self.scores.total else self.confidences

    def add(self, part: pa.Table) -> None:
        """Add the next rows of `predictions`.

        Args:
            part: Rows that follow those added before, with the light columns.
        """
        positions = np.arange(self._position, self._position + part.num_rows)
        self._position += part.num_rows
        ok = pc.equal(part["status"], "ok").to_numpy()
        self._add_failures(part.filter(~ok), positions[~ok])
        self._add_predicted(part.filter(ok), positions[ok])

    def _add_predicted(self, part: pa.Table, positions: Positions) -> None:
        scores = _floats(part, "mean_iou")
        entropies = _floats(part, "mean_entropy")
        self.images += len(positions)
        self.seconds += float(np.nansum(_floats(part, "seconds")))
        self.scores.add(scores)
        self.confidences.add(_floats(part, "mean_confidence"))
        # `Top` keeps the greatest keys; the negative score selects the lowest.
        self.worst.add(-scores, positions)
        self.best.add(scores, positions)
        self.uncertain.add(entropies, positions)
        # The rows with the greatest random keys are a uniform sample, without knowledge of the number of rows.
        draw = self._generator.random(len(positions))
        self.random.add(draw, positions)
        self.sample.add(draw, positions, scores)

    def _add_failures(self, part: pa.Table, positions: Positions) -> None:
        columns = (part[name].to_pylist() for name in _ERROR)
        for position, stage, kind, message in zip(positions.tolist(), *columns, strict=True):
            reason = self.reasons.setdefault((stage, kind), Reason(stage, kind))
            reason.count += 1
            if len(reason.examples) < EXAMPLES:
                reason.examples.append((position, message))


def survey(run: Run, shown: int, seed: int = 0) -> Survey:
    """Survey the predictions of a run; files are read one at a time, and no mask is read.

    Args:
        run: Committed run.
        shown: Maximum number of images to keep in each group.
        seed: Seed of the random choice.
    """
    found = Survey(shown, seed)
    for part in run.tables("predictions/", _COLUMNS):
        found.add(part)
    return found


def _floats(part: pa.Table, name: str) -> Floats:
    return part[name].to_numpy(zero_copy_only=False).astype(np.float64)
