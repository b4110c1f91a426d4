"""One pass over the light columns of `predictions`: which images to show, how scores are spread, why images failed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.results.report.distribution import Distribution
from pipeline.results.tables import Run
from pipeline.results.top import Floats, Positions, Top

__all__ = ["EXAMPLES", "Reason", "Survey", "survey"]

EXAMPLES = 10  # failed images shown per reason
_SAMPLE = 10_000  # images that stand for the run where all cannot be held
_ERROR = ("error_stage", "error_type", "error_message")
_COLUMNS = ("status", *_ERROR, "mean_iou", "mean_confidence", "mean_entropy", "seconds")


@dataclass
class Reason:
    """Why images failed.

    Attributes:
        stage, kind: `error_stage` and `error_type`.
        count: of images.
        examples: position and message of the first of them.
    """

    stage: str
    kind: str
    count: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)


class Survey:
    """What a report needs to know of all images, in memory that does not grow with their number.

    Attributes:
        images: predicted so far.
        seconds: that they took together, fetch to encode.
        scores: distribution of their mean IoU; of no values without labels.
        confidences: distribution of their mean confidence.
        reasons: of failures, by stage and type.
        worst, best: images by mean IoU.
        uncertain: images by mean entropy.
        random: images by a seeded draw.
        sample: the same of 10,000, with their mean IoU.
    """

    def __init__(self, shown: int, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        self._position = 0
        self.images, self.seconds = 0, 0.0
        self.scores, self.confidences = Distribution(), Distribution()
        self.reasons: dict[tuple[str, str], Reason] = {}
        self.worst, self.best, self.uncertain, self.random = (Top(shown) for _ in range(4))
        self.sample = Top(_SAMPLE)

    @property
    def spread(self) -> Distribution:
        """Of scores where there are labels, else of confidences: the nearest there is."""
        return self.scores if self.scores.total else self.confidences

    def add(self, part: pa.Table) -> None:
        """Takes the next rows of `predictions`."""
        positions = np.arange(self._position, self._position + part.num_rows)
        self._position += part.num_rows
        ok = pc.equal(part["status"], "ok").to_numpy()
        self._add_failures(part.filter(~ok), positions[~ok])
        self._add_predicted(part.filter(ok), positions[ok])

    def _add_predicted(self, part: pa.Table, positions: Positions) -> None:
        scores, entropies = _floats(part, "mean_iou"), _floats(part, "mean_entropy")
        self.images += len(positions)
        self.seconds += float(np.nansum(_floats(part, "seconds")))
        self.scores.add(scores)
        self.confidences.add(_floats(part, "mean_confidence"))
        self.worst.add(-scores, positions)
        self.best.add(scores, positions)
        self.uncertain.add(entropies, positions)
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
    """Reads `predictions` of a run, one file at a time, and no mask.

    Args:
        run: a committed run.
        shown: images of each kind to show.
        seed: of the random ones.
    """
    found = Survey(shown, seed)
    for part in run.tables("predictions/", _COLUMNS):
        found.add(part)
    return found


def _floats(part: pa.Table, name: str) -> Floats:
    return part[name].to_numpy(zero_copy_only=False).astype(np.float64)
