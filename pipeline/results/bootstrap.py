"""How far scores would move with other images of the same kind: a bootstrap over images, in bounded memory.

Each image counts Poisson(1) times in each resample, instead of being drawn with replacement: the same in the limit of
many images, and then images can come one after the other (Chamandy et al., Estimating Uncertainty for Massive Data
Streams, 2012). Pixels of one image are not independent, so that images are what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pipeline.results.quotients import Floats, mean_of_defined, quotients

__all__ = ["RESAMPLES", "Resampling", "class_ious", "interval", "mean_ious", "resampled_sums", "score_counts"]

RESAMPLES = 1000
_LEVEL = 0.95
# Images weighted at a time at least: 33 MB of weights.
_IMAGES = 4096


def score_counts(image_scores: pa.Table, classes: int) -> Floats:
    """Intersections and unions of labelled images: (N, 2, C), from rows of `image_scores` in their order."""
    columns = [
        image_scores[name].to_numpy(zero_copy_only=False).reshape(-1, classes) for name in ("intersection", "union")
    ]
    counts = np.stack(columns, axis=1).astype(np.float64)
    return counts[~np.isnan(counts).any(axis=(1, 2))]


class Resampling:
    """Sums over images in each resample, image by image or part by part; the same calls give the same sums.

    Counts are whole numbers, and sums of them are exact: equal counts give equal sums, to the bit.

    Args:
        resamples: R.
        seed: of the draws.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._resamples, self._generator = resamples, np.random.default_rng(seed)
        self._waiting: list[Floats] = []
        self._images = 0
        self._sums = np.zeros(resamples)

    def add(self, counts: Floats) -> None:
        """Takes (N, …) counts of some images, always of one shape but for N."""
        self._waiting.append(counts)
        self._images += len(counts)
        # So many at a time that products of matrices pay.
        if self._images >= _IMAGES:
            self._sum_up()

    def sums(self) -> Floats:
        """(R, …) over all so far; zeros of no shape, (R,), if there were none."""
        if self._waiting:
            self._sum_up()
        return self._sums

    def _sum_up(self) -> None:
        counts = np.concatenate(self._waiting)
        self._waiting, self._images = [], 0
        weights = self._generator.poisson(1.0, (self._resamples, len(counts))).astype(np.float64)
        more = (weights @ counts.reshape(len(counts), -1)).reshape(self._resamples, *counts.shape[1:])
        self._sums = more + self._sums if self._sums.ndim > 1 else more


def resampled_sums(parts: Iterable[Floats], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Sums over images in each resample.

    Args:
        parts: (N, …) counts of some images each, all of one shape but for N.
        resamples: R.
        seed: the same seed and parts give the same sums.

    Returns:
        (R, …); zeros of no shape, (R,), if there are no parts.
    """
    resampling = Resampling(resamples, seed)
    for counts in parts:
        resampling.add(counts)
    return resampling.sums()


def class_ious(sums: Floats) -> Floats:
    """(…, 2, C) sums of intersections and unions → (…, C); NaN where a class has no union."""
    return quotients(sums[..., 0, :], sums[..., 1, :])


def mean_ious(sums: Floats) -> Floats:
    """(…, 2, C) → (…), over the classes that have a union; NaN if none has."""
    return mean_of_defined(class_ious(sums))


def interval(values: Floats) -> tuple[float, float] | None:
    """The middle 95% of (R,) resampled values; None if more than one in twenty is undefined: too few images have it."""
    defined = values[~np.isnan(values)]
    if len(defined) < _LEVEL * len(values):
        return None
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
