"""Differences of IoU between two runs, with intervals from a paired bootstrap over images.

Each resample draws the same images for both runs, so the difficulty that both share cancels out. The interval of the
difference is therefore much narrower than those of the two scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.results.statistics.bootstrap import class_ious, interval, mean_ious
from pipeline.results.statistics.intervals import Interval
from pipeline.results.statistics.quotients import Floats

__all__ = ["HIGHER", "LOWER", "NOT_SHOWN", "ScoreDifference", "ScoreDifferences", "score_differences"]

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
