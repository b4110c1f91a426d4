"""95% intervals of the IoU of each class and of their mean, for a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.results.bootstrap import class_ious, interval, mean_ious, resampled_sums, score_counts
from pipeline.results.quotients import Floats
from pipeline.results.tables import Run

__all__ = ["Interval", "IouIntervals", "iou_intervals"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class IouIntervals:
    """Between which values 95% of resampled runs lie, as parts of 1.

    Attributes:
        classes: by class id; None for a class that too few images hold.
        mean: of the mean IoU; None without labels, or with too few labelled images.
    """

    classes: tuple[Interval | None, ...]
    mean: Interval | None


def iou_intervals(run: Run) -> IouIntervals:
    """Resamples the labelled images of a run; one file of `image_scores` is in memory at a time.

    The same run always gives the same intervals.
    """
    sums = resampled_sums(_counts(run))
    if sums.ndim == 1:
        return IouIntervals((None,) * len(run.classes), None)
    ious = class_ious(sums)
    return IouIntervals(tuple(interval(ious[:, each]) for each in range(ious.shape[1])), interval(mean_ious(sums)))


def _counts(run: Run) -> Iterator[Floats]:
    for table in run.tables("image_scores/", ["intersection", "union"]):
        counts = score_counts(table, len(run.classes))
        if len(counts):
            yield counts
