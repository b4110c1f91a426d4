"""Plots of a report as PNG files, for slides and papers; drawn without matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.results.report.class_rows import ClassRow, PaperFigures
from pipeline.results.report.heat_map import HeatMap
from pipeline.results.report.survey import Bar
from pipeline.results.scoring.measures import Bin
from pipeline.results.statistics.bootstrap import Interval

__all__ = ["confusion_plot", "distribution_plot", "iou_plot", "reliability_plot"]

_BLUE = "#4a7fc1"
_ORANGE = "#b34700"
_INK = "#1c1e21"
_GREY = "#9aa0a6"
_DPI = 150
_MARKERS = "D^osv"


def iou_plot(
    rows: Sequence[ClassRow], mean: float | None, mean_interval: Interval | None, figures: Sequence[PaperFigures]
) -> bytes:
    """Plot the IoU of each class with its interval and the paper's figures, best class first, as PNG.

    Args:
        rows: Scores of each class.
        mean: Mean IoU of the run in [0, 1]; None if it is undefined.
        mean_interval: 95% interval of the mean IoU; None if it is undefined.
        figures: Rows of the paper's tables, in the order of the values `paper` of each class.
    """
    # matplotlib draws the first bar at the bottom, so the best class comes last.
    order = sorted(rows, key=lambda row: -1.0 if row.iou is None else row.iou)

    def draw(axes: Axes) -> None:
        values = [100 * (row.iou or 0) for row in order]
        axes.barh([row.name for row in order], values, color=_BLUE, height=0.62)
        for place, row in enumerate(order):
            if row.interval is not None:
                axes.plot([100 * each for each in row.interval], [place, place], color=_INK, linewidth=1.4)
            # Beyond the axis' end at 100, so that all numbers form one column.
            label = "undefined" if row.iou is None else f"{100 * row.iou:.1f}"
            axes.annotate(label, (101, place), va="center", fontsize=8, annotation_clip=False)
        for number, figure in enumerate(figures):
            marks = [(100 * value, at) for at, row in enumerate(order) if (value := row.paper[number]) is not None]
            if marks:
                x, y = zip(*marks, strict=True)
                # Marks are hollow: the first figure's are filled white, the others' are transparent.
                face = "none" if number else "white"
                axes.scatter(
                    x,
                    y,
                    s=26,
                    zorder=3,
                    color=_ORANGE,
                    facecolors=face,
                    marker=_MARKERS[number],
                    label=f"paper, {figure.name}",
                )
        if figures:
            axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_xlabel("IoU, %")
        axes.set_title(_mean_title(mean, mean_interval), loc="left", fontsize=10)

    return _png(draw, 6.4, 1.3 + 0.27 * len(order) + 0.25 * bool(figures))


def confusion_plot(heat: HeatMap) -> bytes:
    """Plot a confusion matrix by the shares of each labeled class, as PNG.

    Rows sum to 100%. The shade of a cell follows the square root of its share; darker is more.
    """
    # (rows, columns); NaN, which is drawn blank, where the labels do not hold the row's class.
    shares = np.array([[np.nan if cell.share is None else cell.share for cell in row.cells] for row in heat.rows])

    def draw(axes: Axes) -> None:
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*shares.shape):
            cell = heat.rows[row].cells[column]
            axes.text(column, row, cell.text, ha="center", va="center", fontsize=6, color=cell.ink)
        axes.set_xticks(range(len(heat.columns)), heat.columns, rotation=90)
        axes.set_yticks(range(len(heat.rows)), [row.name for row in heat.rows])
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")
        axes.set_title("Share of each labeled class, %", loc="left", fontsize=10)

    side = 2.2 + 0.33 * len(heat.columns)
    return _png(draw, side + 0.6, side)


def distribution_plot(bars: Sequence[Bar], median: float | None, *, labelled: bool) -> bytes:
    """Plot the distribution of the images' mean IoU, or of their mean confidence without labels, as PNG.

    Args:
        bars: Histogram of the values; all bars have the same width.
        median: Median of the values in [0, 1]; None if there are no values.
        labelled: Whether the values are mean IoU; else they are mean confidence.
    """

    def draw(axes: Axes) -> None:
        width = 100 * (bars[0].high - bars[0].low)
        axes.bar([100 * bar.low for bar in bars], [bar.count for bar in bars], width, align="edge", color=_BLUE)
        if median is not None:
            axes.axvline(100 * median, color=_INK, linewidth=1.2, linestyle="--", label=f"median {100 * median:.1f}")
            axes.legend(frameon=False, fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_xlabel("mean IoU of the image, %" if labelled else "mean confidence of the image, %")
        axes.set_ylabel("images")

    return _png(draw, 6.4, 3.2)


def reliability_plot(curve: Sequence[Bin], error: float | None) -> bytes:
    """Plot accuracy over confidence, as PNG.

    On the diagonal, a confidence of 80% is right in four cases of five.

    Args:
        curve: Bins of confidence; those without pixels are left out.
        error: Expected calibration error in [0, 1]; None if it is undefined.
    """
    filled = [each for each in curve if each.pixels]
    pixels = np.array([each.pixels for each in filled], np.float64)
    confidences = [each.confidence for each in filled]
    accuracies = [each.accuracy for each in filled]

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1, linestyle="--")
        x, y = ([100 * (value or 0.0) for value in values] for values in (confidences, accuracies))
        axes.plot(x, y, color=_BLUE)
        # The area of a mark follows the bin's pixels; the constant keeps small bins visible.
        axes.scatter(x, y, s=200 * pixels / pixels.max() + 8, color=_BLUE, label="larger marker: more pixels")
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_aspect("equal")
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("correct pixels, %")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        if error is not None:
            axes.set_title(f"expected calibration error {100 * error:.1f}%", loc="left", fontsize=10)

    return _png(draw, 4.6, 4.6)


def _mean_title(mean: float | None, interval: Interval | None) -> str:
    if mean is None:
        return "no labels: IoU is undefined"
    spread = "" if interval is None else f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
    return f"mean IoU {100 * mean:.1f}%{spread}; lines: 95% bootstrap intervals"


def _png(draw: Callable[[Axes], None], width: float, height: float) -> bytes:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    draw(axes)
    sink = io.BytesIO()
    # The file holds no date and no version, so the same run always gives the same bytes.
    figure.savefig(sink, format="png", dpi=_DPI, metadata={"Software": None})
    return sink.getvalue()
