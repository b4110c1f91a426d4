"""What a report says of each class: scores, their interval, the paper's figures, and how much of the run it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.results.intervals import Interval, IouIntervals
from pipeline.results.paper_figures import PaperFigures
from pipeline.results.tables import Run

__all__ = ["ClassRow", "class_rows"]


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
