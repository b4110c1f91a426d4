"""Per-class part of a report: scores, their intervals, the paper's figures, and shares of the pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.label_spaces import LABEL_SPACES
from pipeline.results.report.heat_map import Confused, HeatMap, confused_pairs, heat_map
from pipeline.results.statistics.bootstrap import Interval, IouIntervals, iou_intervals
from pipeline.results.tables import Run

__all__ = ["ClassFindings", "ClassRow", "PaperFigures", "class_findings", "class_rows", "paper_figures"]


@dataclass(frozen=True)
class PaperFigures:
    """One row of the paper's tables: the IoU of each class and their mean.

    Attributes:
        name: Short name of the data set.
        source: Network, split and table of the paper.
        spaces: Names of the data set's label spaces.
        iou: IoU in percent, by class name; a class that the paper does not print is absent.
        mean: Mean IoU in percent, as printed.
    """

    name: str
    source: str
    spaces: tuple[str, ...]
    iou: Mapping[str, float]
    mean: float


def paper_figures(classes: Sequence[str], label_space: str | None = None) -> list[PaperFigures]:
    """Return the rows of the paper's tables that have the given classes, in any order.

    Args:
        classes: Class names of the run.
        label_space: Label space of the run's labels, if the run names one. It selects the data set where several
            have the same classes, as CamVid and KITTI do.

    Returns:
        Matching rows; empty if no data set of the paper has these classes.
    """
    same = [row for row in _ROWS if set(LABEL_SPACES[row.spaces[0]].classes) == set(classes)]
    # Without a label space that decides, all data sets with these classes are shown.
    return [row for row in same if label_space in row.spaces] or same


def _row(name: str, source: str, spaces: tuple[str, ...], figures: Sequence[float], mean: float) -> PaperFigures:
    # The paper omits VOC's background, the first class, although the printed mean includes it.
    names = LABEL_SPACES[spaces[0]].classes[-len(figures) :]
    return PaperFigures(name, source, spaces, dict(zip(names, figures, strict=True)), mean)


# IoU in percent, in the order of the label space's classes.
_ROWS = (
    _row(
        "VOC",
        "front end and Large context, VOC-2012 val (Table 3); the mean includes the background",
        ("voc",),
        (
            *(87.3, 39.2, 80.3, 65.6, 66.4, 90.2, 82.6, 85.8, 34.8, 81.9),
            *(51.7, 79, 84.1, 80.9, 83.2, 51.2, 83.2, 44.7, 83.4, 65.6),
        ),
        72.1,
    ),
    _row(
        "CamVid",
        "Dilation8, CamVid test (Table 5)",
        ("camvid", "camvid_segnet"),
        (82.6, 76.2, 89.9, 84.0, 46.9, 92.2, 56.3, 35.8, 23.4, 75.3, 55.5),
        65.3,
    ),
    _row(
        "KITTI",
        "Dilation7, KITTI test (Table 6)",
        ("kitti",),
        (84.6, 81.1, 83, 81.4, 41.8, 92.9, 4.6, 47.1, 35.2, 73.1, 26.4),
        59.2,
    ),
    _row(
        "Cityscapes",
        "Dilation10, Cityscapes val (Tables 7 and 8)",
        ("cityscapes", "cityscapes_label_ids"),
        (97.2, 79.5, 90.4, 44.9, 52.4, 55.1, 56.7, 69, 91, 58.7, 92.6, 75.7, 50, 92.2, 56.2, 72.6, 54.3, 46.2, 70.1),
        68.7,
    ),
)


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
