"""Users' own classes: `classes.csv` or `classes.json` beside the data, and a palette for classes without colors.

`classes.csv` has the columns `id,name` and perhaps `red,green,blue`; `id` is the value in the label files.
`classes.json` is `{"classes": [{"id": 0, "name": "sky", "color": [r, g, b]}], "ignore_label": 255}`. Several ids may
share a name: they are one class. Class ids count from 0 in the file's order. A class named `ignore` counts nowhere, and
neither does the value 255 unless it is listed.
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
_NEUTRAL: Color = (128, 128, 128)  # of background, so that the other classes stand out
# The seven chromatic colors of Okabe and Ito (2008), which people with any common color vision can tell apart.
_OKABE_ITO: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_DARKEST = 35  # lightness (0–100): ignored pixels are drawn dark, and no class looks like them


@dataclass(frozen=True)
class ClassRow:
    """One row of a classes file.

    Attributes:
        value: Value in label files, 0–65535.
        name: Name of the class; `ignore` for pixels that count nowhere.
        color: RGB color; None: one is chosen.
    """

    value: int
    name: str
    color: Color | None = None


def find_classes(storage: Storage, root: str) -> str | None:
    """Return the URI of the classes file directly below `root`, or None.

    Raises:
        ConfigError: If there is a CSV and a JSON file.
    """
    found = [uri for uri in (join(root, name) for name in CLASS_FILES) if storage.exists(uri)]
    if len(found) > 1:
        raise ConfigError(f"there are {' and '.join(found)}: remove one, or choose with --classes")
    return found[0] if found else None


def read_classes(storage: Storage, uri: str) -> LabelSpace:
    """Read a classes file, CSV or JSON by its suffix.

    Raises:
        ConfigError: If it does not exist or says something impossible; the message names file, row and remedy.
    """
    try:
        data = storage.read(uri)
    except ObjectMissing as error:
        raise ConfigError(f"there is no classes file {uri}: create it, with the columns id,name") from error
    rows, ignored = _parse_json(data, uri) if uri.lower().endswith(".json") else (_parse_csv(data, uri), [])
    return _label_space(rows, ignored, uri)


def classes_csv(rows: Iterable[ClassRow]) -> bytes:
    """Return a `classes.csv`; missing colors stay empty."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([row.value, row.name, *(row.color or ("", "", ""))])
    return sink.getvalue().encode()


def choose_palette(count: int, taken: Sequence[Color] = ()) -> list[Color]:
    """Return `count` RGB colors that color-blind people can tell apart, none of them in `taken`."""
    chosen = [color for color in _OKABE_ITO if color not in taken][:count]
    if len(chosen) < count:
        chosen += _farthest_colors(count - len(chosen), [*taken, *chosen])
    return chosen


def _farthest_colors(count: int, known: Sequence[Color]) -> list[Color]:
    """Return colors, each the farthest from all before it in the vision that tells it least well from one of them."""
    levels = range(0, 256, 255 // 15)
    candidates = list(itertools.product(levels, levels, levels))
    places = _seen(candidates)
    light = np.flatnonzero(places[0, :, 0] > _DARKEST)
    candidates = [candidates[index] for index in light]
    places = places[:, light]
    distance = np.full(len(candidates), np.inf)
    for place in np.moveaxis(_seen(known), 1, 0):
        distance = np.minimum(distance, _least_distance(places, place))
    found = []
    for _ in range(count):
        best = int(distance.argmax())
        found.append(candidates[best])
        distance = np.minimum(distance, _least_distance(places, places[:, best]))
    return found


def _seen(colors: Sequence[Color]) -> NDArray[np.float64]:
    """Return (4, N, 3) places in CAM02-UCS: by usual vision, and without red, green or blue cones."""
    # Imported late: few runs choose colors.
    from colorspacious import cspace_convert

    rgb = np.array(colors, np.float64) / 255
    views = [rgb]
    for kind in ("protanomaly", "deuteranomaly", "tritanomaly"):
        space = {"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100}
        views.append(np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1))
    return np.stack([cspace_convert(view, "sRGB1", "CAM02-UCS") for view in views])


def _least_distance(places: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, N, 3) and (4, 3) -> (N,) distances in the vision in which each is the least."""
    distances: NDArray[np.float64] = np.linalg.norm(places - place[:, None], axis=2).min(axis=0)
    return distances


def _parse_csv(data: bytes, uri: str) -> list[ClassRow]:
    try:
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
    """Return a whole number, given as a number or as text."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    if type(number) is not int or not 0 <= number <= largest:
        raise ConfigError(f"{place}: {what} is {value!r}, must be a whole number from 0 to {largest}")
    return number


def _label_space(rows: Sequence[ClassRow], ignored: Sequence[int], uri: str) -> LabelSpace:
    _refuse_contradictions(rows, ignored, uri)
    names = list(dict.fromkeys(row.name for row in rows if row.name != IGNORE))
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise ConfigError(f"{uri} names {len(names)} classes: a network has 2 to {_MOST_CLASSES}")
    void = [*ignored, *(row.value for row in rows if row.name == IGNORE)]
    if all(row.value != _VOID_VALUE for row in rows):
        void.append(_VOID_VALUE)
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
