"""The confusion matrix as a table of shaded cells: of each class in the labels, what part was predicted as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALE", "Cell", "Confused", "HeatMap", "Row", "confused_pairs", "heat_map", "shade"]

Floats = NDArray[np.float64]

SCALE = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)  # shares whose shades explain the others
_MOST = 34  # classes that fit beside each other
_PAIRS = 10
# One hue, from light to dark.
_LIGHT, _DARK = np.array([247.0, 250.0, 253.0]), np.array([8.0, 48.0, 107.0])
# Any softer black would leave shades on which neither can be read.
_INK, _WHITE = "#000000", "#ffffff"


@dataclass(frozen=True)
class Cell:
    """One pair of classes: its part of the row (None: the labels hold none), its text and its two colours."""

    share: float | None
    text: str
    background: str
    ink: str


@dataclass(frozen=True)
class Row:
    """One class of the labels."""

    name: str
    pixels: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HeatMap:
    """Rows are classes of the labels, columns predicted classes; `folded` of them are summed up in "other"."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    folded: int


@dataclass(frozen=True)
class Confused:
    """Pixels of class `target` that were predicted as `predicted`, and which part of the class they are."""

    target: str
    predicted: str
    pixels: int
    share: float


def heat_map(confusion: Floats, names: Sequence[str], most: int = _MOST) -> HeatMap:
    """Shades a confusion matrix by rows, each of which sums to 1 or is undefined.

    Args:
        confusion: (C, C) pixels, rows the target.
        names: of the classes.
        most: of more classes than this the most frequent are shown, and the others together.
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
    """The ten pairs of different classes with the most pixels."""
    wrong = confusion * (1 - np.eye(len(names)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(each), len(names)) for each in order]
    return [
        Confused(names[row], names[column], int(wrong[row, column]), float(wrong[row, column] / confusion[row].sum()))
        for row, column in pairs
        if wrong[row, column]
    ]


def shade(share: float) -> tuple[str, str]:
    """Colours of a cell and of its text: `#rrggbb` each, of a contrast of at least 4.5."""
    # Not linear: a class is mostly right, and a few per cent of confusion must still be seen.
    colour = _LIGHT + (_DARK - _LIGHT) * np.sqrt(share)
    return "#" + bytes(colour.round().astype(np.uint8)).hex(), _INK if _luminance(colour) > 0.18 else _WHITE


def _folded(confusion: Floats, names: list[str], most: int) -> tuple[Floats, list[str]]:
    if len(names) <= most:
        return confusion, names
    order = np.argsort(-confusion.sum(axis=1), kind="stable")
    chosen = np.sort(order[:most])
    group = np.full(len(names), most)
    group[chosen] = np.arange(most)
    folded = np.zeros((most + 1, most + 1))
    np.add.at(folded, (group[:, None], group[None, :]), confusion)
    return folded, [*(names[each] for each in chosen), "other"]


def _cell(share: float) -> Cell:
    if np.isnan(share):
        return Cell(None, "", *shade(0.0))
    # Zeros would hide what matters.
    return Cell(share, f"{100 * share:.0f}" if share >= 0.005 else "", *shade(share))


def _luminance(colour: Floats) -> float:
    """Relative luminance of sRGB values from 0 to 255, as WCAG defines it."""
    part = colour / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
