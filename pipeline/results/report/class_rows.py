"""What a report says of each class: scores, their interval, the paper's figures, and how much of the run it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.results.intervals import Interval, IouIntervals, iou_intervals
from pipeline.results.report.heat_map import Confused, HeatMap, confused_pairs, heat_map
from pipeline.results.report.paper_figures import PaperFigures, paper_figures
from pipeline.results.tables import Run

__all__ = ["ClassFindings", "ClassRow", "class_findings", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """One class. Scores and shares are parts of 1, None where undefined.

    Attributes:
        name, colour: of the class; `#rrggbb`.
        iou, precision, recall: over the run.
        interval: of the IoU, 95%.
        paper: its IoU by each of the paper's rows beside; None where the paper prints none.
        labelled: share of the pixels of all labels.
        predicted: share of the predicted pixels.
        images: that hold it.
    """

    name: str
    colour: str
    iou: float | None
    precision: float | None
    recall: float | None
    interval: Interval | None
    paper: tuple[float | None, ...]
    labelled: float | None
    predicted: float | None
    images: int


@dataclass(frozen=True)
class ClassFindings:
    """All that is said of the classes of a run.

    Attributes:
        figures: rows of the paper's tables that speak of the same classes.
        mean_interval: 95%, of the mean IoU.
        classes: by class id.
        heat: the confusion matrix; None without labels.
        pairs: what is most confused.
    """

    figures: list[PaperFigures]
    mean_interval: Interval | None
    classes: list[ClassRow]
    heat: HeatMap | None
    pairs: list[Confused]


def class_findings(run: Run) -> ClassFindings:
    """Reads the tables of classes, and `image_scores` a file at a time for the intervals."""
    figures = paper_figures(run.classes, run.info().get("settings", {}).get("label_space"))
    intervals = iou_intervals(run)
    rows = class_rows(run, intervals, figures)
    if run.success["mean_iou"] is None:
        return ClassFindings(figures, intervals.mean, rows, None, [])
    confusion = run.confusion().to_numpy(np.float64)
    pairs = confused_pairs(confusion, run.classes)
    return ClassFindings(figures, intervals.mean, rows, heat_map(confusion, run.classes), pairs)


def class_rows(run: Run, intervals: IouIntervals, figures: Sequence[PaperFigures]) -> list[ClassRow]:
    """One row per class, by id."""
    rows = run.class_scores().to_dict("records")
    sums = {name: sum(_number(row[name]) or 0 for row in rows) for name in ("target_pixels", "predicted_pixels")}
    return [
        ClassRow(
            name=row["class_name"],
            colour="#" + bytes(colour).hex(),
            iou=_number(row["iou"]),
            precision=_number(row["precision"]),
            recall=_number(row["recall"]),
            interval=interval,
            paper=tuple(_paper(each, row["class_name"]) for each in figures),
            labelled=_share(row["target_pixels"], sums["target_pixels"]),
            predicted=_share(row["predicted_pixels"], sums["predicted_pixels"]),
            images=int(row["images"]),
        )
        for row, interval, colour in zip(rows, intervals.classes, run.success["palette"], strict=True)
    ]


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _share(pixels: Any, total: float) -> float | None:
    count = _number(pixels)
    return count / total if count is not None and total else None


def _paper(figures: PaperFigures, name: str) -> float | None:
    return figures.iou[name] / 100 if name in figures.iou else None
