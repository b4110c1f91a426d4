"""Heat map of a confusion matrix: the share of each labeled class that was predicted as each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALE", "Cell", "Confused", "HeatMap", "Row", "confused_pairs", "heat_map", "shade"]

Floats = NDArray[np.float64]

SCALE = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)  # shares that the legend of the shades shows
_MOST = 34  # maximum number of classes that fit side by side
_PAIRS = 10
# Ends of the scale, RGB: one hue, from light to dark.
_LIGHT = np.array([247.0, 250.0, 253.0])
_DARK = np.array([8.0, 48.0, 107.0])
# Pure black is necessary: with a softer black, some shades would make both text colors unreadable.
_INK = "#000000"
_WHITE = "#ffffff"


@dataclass(frozen=True)
class Cell:
    """Cell of a heat map: one pair of classes.

    Attributes:
        share: Share of the row's pixels in [0, 1]; None if the labels hold no pixel of the row's class.
        text: Text of the cell, whole percent; empty below half a percent.
        background: Color of the cell, `#rrggbb`.
        ink: Color of the text, `#rrggbb`.
    """

    share: float | None
    text: str
    background: str
    ink: str


@dataclass(frozen=True)
class Row:
    """Row of a heat map: one class of the labels.

    Attributes:
        name: Class name, or "other".
        pixels: Number of pixels of the class, the sum of the row.
        cells: Cells of the row, one per column.
    """

    name: str
    pixels: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HeatMap:
    """Confusion matrix as shaded cells: rows are classes of the labels, columns are predicted classes.

    Attributes:
        columns: Names of the predicted classes.
        rows: Classes of the labels, in the order of the columns.
        folded: Number of classes that are summed up in "other"; 0 if all classes are shown.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    folded: int


@dataclass(frozen=True)
class Confused:
    """Pair of different classes that the network confuses.

    Attributes:
        target: Name of the labeled class.
        predicted: Name of the class that was predicted instead.
        pixels: Number of such pixels.
        share: Share of these pixels in the labeled class, in [0, 1].
    """

    target: str
    predicted: str
    pixels: int
    share: float


def heat_map(confusion: Floats, names: Sequence[str], most: int = _MOST) -> HeatMap:
    """Return a confusion matrix as a heat map; the shares of each row sum to 1 or are undefined.

    Args:
        confusion: (C, C) pixel counts; rows are target classes.
        names: Names of the C classes, by class id.
        most: Maximum number of classes to show. If there are more, the most frequent ones in the labels are shown,
            and the others are summed up in "other".
    """
    confusion, columns = _folded(confusion, list(names), most)
    totals = confusion.sum(axis=1)
    shares = np.divide(confusion, totals[:, None], out=np.full(confusion.shape, np.nan), where=totals[:, None] > 0)
    rows = [
        Row(name, int(total), tuple(_cell(float(share)) for share in row))
        for name, total, row in zip(columns, totals, shares, strict=True)
    ]
    return HeatMap(tuple(columns), tuple(rows), len(names) - most if len(names) > most else 0)


def confused_pairs(confusion: Floats, names: Sequence[str]) -> list[Confused]:
    """Return at most ten pairs of different classes with the most confused pixels, most pixels first.

    Args:
        confusion: (C, C) pixel counts; rows are target classes.
        names: Names of the C classes, by class id.
    """
    wrong = confusion * (1 - np.eye(len(names)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    # Indices into the flattened (C · C,) matrix -> (row, column).
    pairs = [divmod(int(each), len(names)) for each in order]
    return [
        Confused(names[row], names[column], int(wrong[row, column]), float(wrong[row, column] / confusion[row].sum()))
        for row, column in pairs
        if wrong[row, column]
    ]


def shade(share: float) -> tuple[str, str]:
    """Return the colors of a cell and of its text, `#rrggbb`, with a contrast of at least 4.5.

    Args:
        share: Share of the row's pixels in [0, 1].
    """
    # Square root, not linear: most of a class is right, and a few percent of confusion must still be visible.
    colour = _LIGHT + (_DARK - _LIGHT) * np.sqrt(share)
    return "#" + bytes(colour.round().astype(np.uint8)).hex(), _INK if _luminance(colour) > 0.18 else _WHITE


def _folded(confusion: Floats, names: list[str], most: int) -> tuple[Floats, list[str]]:
    """Sum up the classes beyond the `most` most frequent ones as a last class "other".

    Returns:
        (most + 1, most + 1) pixel counts and the names in the order of class ids; both unchanged for few classes.
    """
    if len(names) <= most:
        return confusion, names
    order = np.argsort(-confusion.sum(axis=1), kind="stable")
    chosen = np.sort(order[:most])
    # (C,) index of each class in the smaller matrix; `most` stands for "other".
    group = np.full(len(names), most)
    group[chosen] = np.arange(most)
    folded = np.zeros((most + 1, most + 1))
    np.add.at(folded, (group[:, None], group[None, :]), confusion)
    return folded, [*(names[each] for each in chosen), "other"]


def _cell(share: float) -> Cell:
    if np.isnan(share):
        return Cell(None, "", *shade(0.0))
    # A table full of zeros would hide the values that matter.
    return Cell(share, f"{100 * share:.0f}" if share >= 0.005 else "", *shade(share))


def _luminance(colour: Floats) -> float:
    """Return the relative luminance of an sRGB color with values from 0 to 255, as WCAG defines it."""
    part = colour / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
