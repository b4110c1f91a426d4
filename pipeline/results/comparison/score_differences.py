"""By how much IoU differs between two runs, with intervals of a paired bootstrap over images.

Each resample draws the same images for both runs, so that what is hard for both cancels out: the interval of the
difference is then much narrower than those of the two scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.results.bootstrap import class_ious, interval, mean_ious
from pipeline.results.intervals import Interval
from pipeline.results.quotients import Floats

__all__ = ["HIGHER", "LOWER", "NOT_SHOWN", "ScoreDifference", "ScoreDifferences", "score_differences"]

HIGHER, LOWER, NOT_SHOWN = "higher", "lower", "no difference shown"


@dataclass(frozen=True)
class ScoreDifference:
    """One score of two runs, as parts of 1; None where undefined.

    Attributes:
        a, b: the scores.
        interval: 95%, of b - a; None if too few images have the class.
    """

    a: float | None
    b: float | None
    interval: Interval | None

    @property
    def difference(self) -> float | None:
        """b - a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def verdict(self) -> str | None:
        """Whether B is higher or lower, or neither is shown; None without an interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return HIGHER if low > 0 else LOWER if high < 0 else NOT_SHOWN


@dataclass(frozen=True)
class ScoreDifferences:
    """IoU of each class, by id, and their mean."""

    classes: tuple[ScoreDifference, ...]
    mean: ScoreDifference


def score_differences(sums: Floats, resampled: Floats) -> ScoreDifferences:
    """Scores and the intervals of their differences.

    Args:
        sums: (2, 2, C) of runs A and B, intersections and unions, over all labelled images.
        resampled: (R, 2, 2, C), the same in each resample; (R,) if no image is labelled.
    """
    ious, means = class_ious(sums), mean_ious(sums)
    classes = ious.shape[-1]
    if resampled.ndim == 1:
        intervals: list[Interval | None] = [None] * (classes + 1)
    else:
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
