"""Per-class part of a report: scores, their intervals, the paper's figures, and shares of the pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.results.report.heat_map import Confused, HeatMap, confused_pairs, heat_map
from pipeline.results.report.paper_figures import PaperFigures, paper_figures
from pipeline.results.statistics.intervals import Interval, IouIntervals, iou_intervals
from pipeline.results.tables import Run

__all__ = ["ClassFindings", "ClassRow", "class_findings", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """Scores and pixel shares of one class over a run, in [0, 1]; None where undefined.

    Attributes:
        name: Class name.
        colour: Color of the class, `#rrggbb`.
        iou: Intersection over union.
        precision: Intersection divided by the predicted pixels.
        recall: Intersection divided by the labeled pixels.
        interval: 95% interval of the IoU.
        paper: IoU by each row of the paper's tables that is shown; None where the paper prints none.
        labelled: Share of the class in the pixels of all labels.
        predicted: Share of the class in the predicted pixels.
        images: Number of images whose label holds the class; without labels, whose mask does.
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
    """Everything that a report states about the classes of a run.

    Attributes:
        figures: Rows of the paper's tables that have the same classes.
        mean_interval: 95% interval of the mean IoU; None if it is undefined.
        classes: Scores of each class, by class id.
        heat: Confusion matrix as a heat map; None without labels.
        pairs: Most confused pairs of classes; empty without labels.
    """

    figures: list[PaperFigures]
    mean_interval: Interval | None
    classes: list[ClassRow]
    heat: HeatMap | None
    pairs: list[Confused]


def class_findings(run: Run) -> ClassFindings:
    """Return the class findings of a committed run.

    Reads the tables of classes and, for the intervals, `image_scores` one file at a time.
    """
    figures = paper_figures(run.classes, run.info().get("settings", {}).get("label_space"))
    intervals = iou_intervals(run)
    rows = class_rows(run, intervals, figures)
    if run.success["mean_iou"] is None:
        return ClassFindings(figures, intervals.mean, rows, None, [])
    confusion = run.confusion().to_numpy(np.float64)
    pairs = confused_pairs(confusion, run.classes)
    return ClassFindings(figures, intervals.mean, rows, heat_map(confusion, run.classes), pairs)


def class_rows(run: Run, intervals: IouIntervals, figures: Sequence[PaperFigures]) -> list[ClassRow]:
    """Return the scores and pixel shares of each class, by id.

    Args:
        run: Committed run.
        intervals: Intervals of the run's IoU.
        figures: Rows of the paper's tables to show beside the run's own IoU.
    """
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
    # pandas turns a null of a numeric column into NaN.
    return None if value is None or math.isnan(value) else float(value)


def _share(pixels: Any, total: float) -> float | None:
    count = _number(pixels)
    return count / total if count is not None and total else None


def _paper(figures: PaperFigures, name: str) -> float | None:
    # The paper prints percent.
    return figures.iou[name] / 100 if name in figures.iou else None
