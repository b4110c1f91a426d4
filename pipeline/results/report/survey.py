"""Single pass over the light columns of `predictions`: images to show, spread of the scores, and failure reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.data.manifest_table import describe_changes
from pipeline.results.statistics.top import Floats, Positions, Top
from pipeline.results.tables import Run

__all__ = ["EXAMPLES", "Bar", "Distribution", "Reason", "Survey", "all_facts", "main_facts", "survey"]

# Number of bins; with 10,000 the median is exact to a hundredth of a percent.
_FINE = 10_000


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram.

    Attributes:
        low: Lower end of the bar's range, included.
        high: Upper end of the bar's range, included only in the last bar.
        count: Number of values in the range.
    """

    low: float
    high: float
    count: int


class Distribution:
    """Histogram of values in [0, 1] that grows as values are added; NaN counts nowhere."""

    def __init__(self) -> None:
        self._counts = np.zeros(_FINE, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Count (N,) values in [0, 1], except those that are NaN."""
        # The clip puts the value 1 into the last bin.
        cells = (values[~np.isnan(values)] * _FINE).astype(np.int64).clip(0, _FINE - 1)
        self._counts += np.bincount(cells, minlength=_FINE)

    @property
    def total(self) -> int:
        """Return the number of values counted so far."""
        return int(self._counts.sum())

    def median(self) -> float | None:
        """Return the median, exact to a hundredth of a percent; None without values."""
        if not self.total:
            return None
        cell = int(np.searchsorted(np.cumsum(self._counts), (self.total + 1) // 2))
        return (cell + 0.5) / _FINE

    def bars(self, count: int = 20) -> list[Bar]:
        """Return the histogram as bars of equal width from 0 to 1.

        Args:
            count: Number of bars; it must divide 10,000.
        """
        sums = self._counts.reshape(count, -1).sum(axis=1)
        return [Bar(each / count, (each + 1) / count, int(rows)) for each, rows in enumerate(sums)]


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


Facts = list[tuple[str, str]]


def main_facts(info: dict[str, Any], found: Survey) -> Facts:
    """Return the main facts of a run: network, data, important settings, and the work per image.

    A fact that an older run does not record is left out.

    Args:
        info: Content of `run.json`.
        found: Survey of the run's images.
    """
    settings = info.get("settings", {})
    checkpoint = info.get("checkpoint", {})
    provenance = info.get("provenance", {})
    rows = info.get("manifest", {}).get("rows")
    scored = f"{found.scores.total:,} of them scored against a label"
    facts = {
        "network": checkpoint.get("uri"),
        "images": settings.get("images"),
        "labels": settings.get("labels"),
        "label space": settings.get("label_space"),
        "inputs": None if rows is None else f"{rows:,} images, {scored}",
        "since": _since(info.get("since")),
        "geometry": settings.get("geometry"),
        "averaged over": _views(settings),
        "started": provenance.get("created_at"),
        "time per image": _work(found),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def all_facts(info: dict[str, Any]) -> Facts:
    """Return all facts of `run.json`: the checkpoint, the sections from settings to provenance, and the identity.

    Null values are left out. A value that is not text is written as JSON.

    Args:
        info: Content of `run.json`.
    """
    facts = [("checkpoint", info.get("checkpoint", {}).get("uri", ""))]
    facts.append(("checkpoint SHA-256", info.get("checkpoint", {}).get("sha256", "")))
    for section in ("settings", "manifest", "shards", "provenance"):
        for name, value in info.get(section, {}).items():
            if value is not None:
                facts.append((_words(section, name), value if isinstance(value, str) else json.dumps(value)))
    return [*facts, ("identity", info.get("identity", ""))]


def _since(since: dict[str, Any] | None) -> str | None:
    """Describe the earlier run of `--since` and the number of images by kind of change; None without one."""
    if since is None:
        return None
    return f"{since['output']}: {describe_changes(since)}; the earlier runs have the unchanged images"


def _views(settings: dict[str, Any]) -> str | None:
    """Describe the scales and the mirroring that predictions are averaged over; None for the plain image alone."""
    # A run without these settings uses the image as it is.
    scales = settings.get("scales") or [1.0]
    flip = settings.get("flip")
    if not flip and scales == [1.0]:
        return None
    return f"scales {', '.join(f'{scale:g}' for scale in scales)}" + (", each also mirrored" if flip else "")


def _work(found: Survey) -> str | None:
    """Describe the mean time per image, from the column `seconds`; None without predicted images.

    No table records the duration of the run, which may have been interrupted.
    """
    if not found.images or not found.seconds:
        return None
    mean = found.seconds / found.images
    return f"{mean:.3g} s on average to load, predict and encode; {1 / mean:.3g} images per second, one after the other"


def _words(section: str, name: str) -> str:
    words = name.replace("_", " ")
    # Names of the other sections, such as `rows`, are unclear without the section.
    return words if section in ("settings", "provenance") else f"{section} {words}"
