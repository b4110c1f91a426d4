"""User-defined classes: `classes.csv` or `classes.json` beside the data, and a palette for classes without colors.

`classes.csv` has the columns `id,name` and optionally `red,green,blue`; `id` is the value in the label files.
`classes.json` is `{"classes": [{"id": 0, "name": "sky", "color": [r, g, b]}], "ignore_label": 255}`; `ignore_label` may
also be a list. Several ids may share a name: they form one class. Class ids count from 0 in the file's order. Pixels of
a class named `ignore` count nowhere. The same applies to the value 255 unless the file lists it.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.label_spaces import OWN, Color, LabelEncoding, LabelSpace
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, ObjectMissing

__all__ = [
    "BACKGROUND",
    "CLASS_FILES",
    "IGNORE",
    "ClassRow",
    "choose_palette",
    "classes_csv",
    "find_classes",
    "read_classes",
]

CLASS_FILES = ("classes.csv", "classes.json")
IGNORE = "ignore"
BACKGROUND = "background"
_COLUMNS = ("id", "name", "red", "green", "blue")
_MOST_CLASSES = 255  # the 256th value of a mask is void
_LARGEST_VALUE = 65535  # 16-bit label files
_VOID_VALUE = 255
_LONGEST_NAME = 100  # characters, as in checkpoints
_NEUTRAL: Color = (128, 128, 128)  # color of background, against which the other classes stand out
# The seven chromatic colors of Okabe and Ito (2008), distinguishable with any common color vision.
_OKABE_ITO: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_DARKEST = 35  # lightness (0–100); ignored pixels are drawn dark, so every class color is lighter than this


@dataclass(frozen=True)
class ClassRow:
    """One row of a classes file.

    Attributes:
        value: Value in label files, 0–65535.
        name: Name of the class; `ignore` for pixels that count nowhere.
        color: RGB color, 0–255 per channel; None if a color is to be chosen.
    """

    value: int
    name: str
    color: Color | None = None


def find_classes(storage: Storage, root: str) -> str | None:
    """Return the URI of the classes file directly below `root`, or None if there is none.

    Raises:
        ConfigError: If there are both a CSV and a JSON file.
    """
    found = [uri for uri in (join(root, name) for name in CLASS_FILES) if storage.exists(uri)]
    if len(found) > 1:
        raise ConfigError(f"there are {' and '.join(found)}: remove one, or choose with --classes")
    return found[0] if found else None


def read_classes(storage: Storage, uri: str) -> LabelSpace:
    """Read a classes file into a label space; its suffix decides between CSV and JSON.

    Raises:
        ConfigError: If the file does not exist or its content is invalid; the message names file, row and remedy.
    """
    try:
        data = storage.read(uri)
    except ObjectMissing as error:
        raise ConfigError(f"there is no classes file {uri}: create it, with the columns id,name") from error
    rows, ignored = _parse_json(data, uri) if uri.lower().endswith(".json") else (_parse_csv(data, uri), [])
    return _label_space(rows, ignored, uri)


def classes_csv(rows: Iterable[ClassRow]) -> bytes:
    """Return the content of a `classes.csv`; missing colors stay empty."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([row.value, row.name, *(row.color or ("", "", ""))])
    return sink.getvalue().encode()


def choose_palette(count: int, taken: Sequence[Color] = ()) -> list[Color]:
    """Return `count` RGB colors, none of them in `taken`, that color-blind people can tell apart.

    The colors of Okabe and Ito come first. Each further color is the farthest from all others.
    """
    chosen = [color for color in _OKABE_ITO if color not in taken][:count]
    if len(chosen) < count:
        chosen += _farthest_colors(count - len(chosen), [*taken, *chosen])
    return chosen


def _farthest_colors(count: int, known: Sequence[Color]) -> list[Color]:
    """Return `count` colors, each as far as possible from all known and previously chosen ones.

    The distance of two colors is the smallest one over normal vision and three kinds of color blindness.
    """
    # Candidates: a grid of 16×16×16 RGB colors, without the dark ones.
    levels = range(0, 256, 255 // 15)
    candidates = list(itertools.product(levels, levels, levels))
    places = _seen(candidates)
    light = np.flatnonzero(places[0, :, 0] > _DARKEST)
    candidates = [candidates[index] for index in light]
    places = places[:, light]
    # Distance of each candidate to the nearest known color.
    distance = np.full(len(candidates), np.inf)
    for place in np.moveaxis(_seen(known), 1, 0):
        distance = np.minimum(distance, _least_distance(places, place))
    # Greedy choice: take the farthest candidate, then update the distances.
    found = []
    for _ in range(count):
        best = int(distance.argmax())
        found.append(candidates[best])
        distance = np.minimum(distance, _least_distance(places, places[:, best]))
    return found


def _seen(colors: Sequence[Color]) -> NDArray[np.float64]:
    """Return (4, N, 3) CAM02-UCS coordinates: for normal vision, and without red, green or blue cones."""
    # A late import: few runs choose colors.
    from colorspacious import cspace_convert

    rgb = np.array(colors, np.float64) / 255
    views = [rgb]
    for kind in ("protanomaly", "deuteranomaly", "tritanomaly"):
        space = {"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100}
        views.append(np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1))
    return np.stack([cspace_convert(view, "sRGB1", "CAM02-UCS") for view in views])


def _least_distance(places: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest distance over the kinds of vision: (4, N, 3) and (4, 3) -> (N,)."""
    distances: NDArray[np.float64] = np.linalg.norm(places - place[:, None], axis=2).min(axis=0)
    return distances


def _parse_csv(data: bytes, uri: str) -> list[ClassRow]:
    try:
        # `utf-8-sig` also accepts the byte order mark that spreadsheet programs write.
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{uri} is not a CSV file in UTF-8: {error}") from error
    header = tuple(name.strip().lower() for name in lines[0]) if lines else ()
    if sorted(header) not in (sorted(_COLUMNS[:2]), sorted(_COLUMNS)):
        raise ConfigError(f"{uri} has the columns {', '.join(header) or '(none)'}: it needs id,name[,red,green,blue]")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in cells):
            if len(cells) != len(header):
                raise ConfigError(f"{uri}, line {number} has {len(cells)} cells, its header {len(header)}: {cells}")
            entry = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            colors = [entry.get(channel, "") for channel in _COLUMNS[2:]]
            color = colors if any(colors) else None
            rows.append(_row(entry["id"], entry["name"], color, f"{uri}, line {number}"))
    return rows


def _parse_json(data: bytes, uri: str) -> tuple[list[ClassRow], list[int]]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{uri} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise ConfigError(f'{uri} needs {{"classes": [{{"id": 0, "name": "sky"}}, …]}}')
    if unknown := sorted(content.keys() - {"classes", "ignore_label"}):
        raise ConfigError(f"{uri} has the unknown key {unknown[0]!r}: it may have classes and ignore_label")
    rows = []
    for number, entry in enumerate(content["classes"]):
        place = f"{uri}, class {number}"
        if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys() <= {"id", "name", "color"}:
            raise ConfigError(f"{place} is {json.dumps(entry)}: it needs the keys id and name, and may have color")
        rows.append(_row(entry["id"], entry["name"], entry.get("color"), place))
    ignored = content.get("ignore_label", [])
    ignored = ignored if isinstance(ignored, list) else [ignored]
    return rows, [_whole(value, _LARGEST_VALUE, "ignore_label", uri) for value in ignored]


def _row(value: Any, name: Any, color: Any, place: str) -> ClassRow:
    text = name.strip() if isinstance(name, str) else ""
    if not text:
        raise ConfigError(f"{place} gives id {value} no name: fill it in, or name it {IGNORE}")
    if not text.isprintable() or len(text) > _LONGEST_NAME:
        raise ConfigError(
            f"{place}: the name {text[:_LONGEST_NAME]!r} is not 1 to {_LONGEST_NAME} printable characters"
        )
    if color is not None:
        if not isinstance(color, list) or len(color) != 3:
            raise ConfigError(f"{place}: the color {color} is not [red, green, blue]")
        red, green, blue = (_whole(channel, 255, "a color channel", place) for channel in color)
        color = (red, green, blue)
    return ClassRow(_whole(value, _LARGEST_VALUE, "the id", place), text, color)


def _whole(value: Any, largest: int, what: str, place: str) -> int:
    """Return a whole number, given as a number or as text.

    Raises:
        ConfigError: If the value is not a whole number from 0 to `largest`.
    """
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    # Not `isinstance`: JSON's `true` is an int in Python.
    if type(number) is not int or not 0 <= number <= largest:
        raise ConfigError(f"{place}: {what} is {value!r}, must be a whole number from 0 to {largest}")
    return number


def _label_space(rows: Sequence[ClassRow], ignored: Sequence[int], uri: str) -> LabelSpace:
    """Build the label space from rows: classes in file order, with their values and colors."""
    _refuse_contradictions(rows, ignored, uri)
    names = list(dict.fromkeys(row.name for row in rows if row.name != IGNORE))
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise ConfigError(f"{uri} names {len(names)} classes: a network has 2 to {_MOST_CLASSES}")
    # Values that count nowhere; 255 is one of them unless the file lists it as a class.
    void = [*ignored, *(row.value for row in rows if row.name == IGNORE)]
    if all(row.value != _VOID_VALUE for row in rows):
        void.append(_VOID_VALUE)
    # The palette takes the first listed color of a class. Background without a color becomes gray if no class has that
    # color. All other classes without a color get a chosen one.
    listed = {name: [row.color for row in rows if row.name == name and row.color is not None] for name in names}
    given = dict(listed)
    taken = [row.color for row in rows if row.color is not None]
    if given.get(BACKGROUND) == [] and _NEUTRAL not in taken:
        given[BACKGROUND] = [_NEUTRAL]
        taken.append(_NEUTRAL)
    chosen = iter(choose_palette(sum(not colors for colors in given.values()), taken))
    palette = tuple(given[name][0] if given[name] else next(chosen) for name in names)
    colors = tuple(tuple(dict.fromkeys(listed[name])) for name in names)
    encoding = LabelEncoding(
        values=tuple(tuple(sorted(row.value for row in rows if row.name == name)) for name in names),
        ignored=tuple(sorted(set(void))),
        colors=colors if any(colors) else (),
        ignored_colors=tuple(row.color for row in rows if row.name == IGNORE and row.color is not None),
    )
    return LabelSpace(OWN, tuple(names), palette, encoding=encoding)


def _refuse_contradictions(rows: Sequence[ClassRow], ignored: Sequence[int], uri: str) -> None:
    """Raise ConfigError if a value or a color has two meanings."""
    names_of_value: dict[int, str] = {}
    names_of_color: dict[Color, str] = {}
    for row in rows:
        other = names_of_value.setdefault(row.value, row.name)
        if other != row.name:
            raise ConfigError(f"{uri} names id {row.value} both {other!r} and {row.name!r}: keep one")
        if row.color is not None and (other := names_of_color.setdefault(row.color, row.name)) != row.name:
            raise ConfigError(f"{uri} gives {other!r} and {row.name!r} the same color {row.color}: change one")
    for value in ignored:
        if value in names_of_value and names_of_value[value] != IGNORE:
            raise ConfigError(f"{uri} lists {value} as ignore_label and as class {names_of_value[value]!r}: keep one")
