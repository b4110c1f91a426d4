"""The tables that `jobs/score.py` left beside a run, for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.storage import join
from pipeline.results.encoding import read_parquet
from pipeline.results.intervals import Interval
from pipeline.results.scoring.calibration import Bin
from pipeline.results.tables import Run

__all__ = ["StoredScore", "StoredScores", "stored_scores"]


@dataclass(frozen=True)
class StoredScore:
    """One score of the whole run, 0–1; None where undefined."""

    name: str
    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class StoredScores:
    """What was scored.

    Attributes:
        scores: in their order.
        curve: reliability of all classes together; empty without confidence maps.
        images: scored.
    """

    scores: tuple[StoredScore, ...]
    curve: tuple[Bin, ...]
    images: int

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error."""
        return next((each.value for each in self.scores if each.name == "expected_calibration_error"), None)


def stored_scores(run: Run) -> StoredScores | None:
    """Reads them; None if the run was not scored, or these are the scores of another run."""
    folder = join(run.output, "scores")
    # Written last of all.
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
