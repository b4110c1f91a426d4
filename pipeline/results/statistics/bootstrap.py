"""Poisson bootstrap over images, in bounded memory: the spread of scores over other images of the same kind.

Each image counts Poisson(1) times in each resample, instead of being drawn with replacement. Both are the same in the
limit of many images, and the Poisson form accepts images one after the other. Source: Chamandy et al., Estimating
Uncertainty for Massive Data Streams, 2012.

The unit of resampling is the image, because pixels of one image are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.results.statistics.scores import Floats, mean_of_defined, quotients
from pipeline.results.tables import Run

__all__ = [
    "RESAMPLES",
    "Interval",
    "IouIntervals",
    "Resampling",
    "class_ious",
    "interval",
    "iou_intervals",
    "mean_ious",
    "resampled_sums",
    "score_counts",
]

RESAMPLES = 1000
_LEVEL = 0.95
# Minimum number of images per weighted sum; 4,096 images and 1,000 resamples need 33 MB of weights.
_IMAGES = 4096


def score_counts(image_scores: pa.Table, classes: int) -> Floats:
    """Return the intersections and unions of the labeled images of an `image_scores` table.

    Args:
        image_scores: Rows with the columns `intersection` and `union`, C consecutive rows per image.
        classes: Number of classes C.

    Returns:
        (N, 2, C) pixel counts of the N labeled images in row order. Images without a label are left out.
    """
    # Two columns of (images · C,) -> (images, C) each; a null becomes NaN.
    columns = [
        image_scores[name].to_numpy(zero_copy_only=False).reshape(-1, classes) for name in ("intersection", "union")
    ]
    # (images, 2, C); images without a label are NaN throughout.
    counts = np.stack(columns, axis=1).astype(np.float64)
    return counts[~np.isnan(counts).any(axis=(1, 2))]


class Resampling:
    """Accumulator of the sums over images in each bootstrap resample.

    Images can be added one by one or in batches; the same sequence of calls gives the same sums. Counts are whole
    numbers, so their sums are exact: equal counts give equal sums, to the bit.

    Args:
        resamples: Number of resamples R.
        seed: Seed of the Poisson draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._resamples = resamples
        self._generator = np.random.default_rng(seed)
        self._waiting: list[Floats] = []
        self._images = 0
        self._sums = np.zeros(resamples)

    def add(self, counts: Floats) -> None:
        """Add the counts of N images to the sums.

        Args:
            counts: (N, …) counts. All dimensions except N are the same in every call.
        """
        self._waiting.append(counts)
        self._images += len(counts)
        # One large matrix product is much faster than a product per image.
        if self._images >= _IMAGES:
            self._sum_up()

    def sums(self) -> Floats:
        """Return the (R, …) sums over all images added so far, or zeros of shape (R,) if there are none."""
        if self._waiting:
            self._sum_up()
        return self._sums

    def _sum_up(self) -> None:
        counts = np.concatenate(self._waiting)
        self._waiting = []
        self._images = 0
        # (R, N) times each image counts in each resample.
        weights = self._generator.poisson(1.0, (self._resamples, len(counts))).astype(np.float64)
        # (R, N) @ (N, K) -> (R, K) -> (R, …), where K is the product of the dimensions after N.
        more = (weights @ counts.reshape(len(counts), -1)).reshape(self._resamples, *counts.shape[1:])
        # The initial (R,) zeros carry no shape of counts yet, so the first sums replace them.
        self._sums = more + self._sums if self._sums.ndim > 1 else more


def resampled_sums(parts: Iterable[Floats], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return the sums of per-image counts over images, for each bootstrap resample.

    Args:
        parts: Batches of (N, …) counts of N images. All dimensions except N are the same in every batch.
        resamples: Number of resamples R.
        seed: Seed of the Poisson draws. The same seed and parts give the same sums.

    Returns:
        (R, …) sums, or zeros of shape (R,) if there are no parts.
    """
    resampling = Resampling(resamples, seed)
    for counts in parts:
        resampling.add(counts)
    return resampling.sums()


def class_ious(sums: Floats) -> Floats:
    """Return the IoU of each class from sums of intersections and unions.

    Args:
        sums: (…, 2, C) sums, intersections before unions.

    Returns:
        (…, C) IoU in [0, 1]; NaN where the union of a class is zero.
    """
    return quotients(sums[..., 0, :], sums[..., 1, :])


def mean_ious(sums: Floats) -> Floats:
    """Return the mean IoU over the classes that have a union.

    Args:
        sums: (…, 2, C) sums, intersections before unions.

    Returns:
        (…) mean IoU in [0, 1]; NaN if no class has a union.
    """
    return mean_of_defined(class_ious(sums))


def interval(values: Floats) -> tuple[float, float] | None:
    """Return the interval that holds the middle 95% of resampled values.

    Args:
        values: (R,) one value per resample; NaN where it is undefined.

    Returns:
        Lower and upper end. None if more than one value in twenty is undefined, because too few images have it.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < _LEVEL * len(values):
        return None
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


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
