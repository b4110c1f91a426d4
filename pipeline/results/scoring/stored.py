"""Reader of the tables that `jobs/score.py` wrote beside a run, for display."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.storage import join
from pipeline.results.schema.encoding import read_parquet
from pipeline.results.scoring.calibration import Bin
from pipeline.results.statistics.intervals import Interval
from pipeline.results.tables import Run

__all__ = ["StoredScore", "StoredScores", "stored_scores"]


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
