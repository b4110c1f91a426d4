"""95% bootstrap intervals of a run's IoU per class and of its mean IoU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.results.statistics.bootstrap import class_ious, interval, mean_ious, resampled_sums, score_counts
from pipeline.results.statistics.quotients import Floats
from pipeline.results.tables import Run

__all__ = ["Interval", "IouIntervals", "iou_intervals"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class IouIntervals:
    """Intervals in [0, 1] that hold 95% of the resampled runs.

    Attributes:
        classes: Interval of the IoU of each class, by class id; None for a class that too few images hold.
        mean: Interval of the mean IoU; None without labels, or with too few labeled images.
    """

    classes: tuple[Interval | None, ...]
    mean: Interval | None


def iou_intervals(run: Run) -> IouIntervals:
    """Return the IoU intervals of a run by resampling its labeled images.

    One file of `image_scores` is in memory at a time. The same run always gives the same intervals.
    """
    sums = resampled_sums(_counts(run))
    # Sums of shape (R,) mean that no image is labeled; else they are (R, 2, C).
    if sums.ndim == 1:
        return IouIntervals((None,) * len(run.classes), None)
    ious = class_ious(sums)
    return IouIntervals(tuple(interval(ious[:, each]) for each in range(ious.shape[1])), interval(mean_ious(sums)))


def _counts(run: Run) -> Iterator[Floats]:
    for table in run.tables("image_scores/", ["intersection", "union"]):
        counts = score_counts(table, len(run.classes))
        if len(counts):
            yield counts
