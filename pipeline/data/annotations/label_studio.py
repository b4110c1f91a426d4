"""Reader of Label Studio's JSON export: brushes, polygons and rectangles of the newest annotation of each task."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.data.annotations.coco import (
    AnnotatedImage,
    Annotations,
    Region,
    checked_name,
    checked_path,
    checked_size,
    entry_errors,
    make_region,
    need,
    paint_regions,
    split_json,
)
from pipeline.data.filesystems import normalise, split
from pipeline.data.manifest import IMAGE_SUFFIXES
from pipeline.errors import ConfigError

__all__ = ["decode_brush", "read_label_studio"]

_BOM = b"\xef\xbb\xbf"
_HEADER = 53  # bits: 32 for the number of values, 5 for the bits of a value, four times 4 for the bits of a length
_CHANNELS = 4
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Brush:
    """Region of a brush, decoded when its image is painted."""

    label: str
    rle: bytes

    def region(self, height: int, width: int) -> Region | None:
        mask = decode_brush(self.rle, height, width)
        encoded = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        area = int(coco_mask.area(encoded))
        return Region(self.label, encoded["counts"], area) if area else None


_Shape = Region | _Brush


def read_label_studio(data: bytes, place: str) -> Annotations:
    """Read a JSON export.

    Labels are sorted by name, because the export does not contain the labeling configuration and its order.

    Args:
        data: Content of the file.
        place: Its URI, for messages.

    Raises:
        ConfigError: If the file is another export of Label Studio's, or a task is malformed; the message names both.
    """
    left_out: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    tasks: list[tuple[str, str, list[_Shape], tuple[int, int]]] = []
    # The parser takes objects apart, and the export is a list.
    wrapped = b'{"tasks":' + data.removeprefix(_BOM) + b"}"
    for number, (_, task) in enumerate(split_json(wrapped, place)):
        task_place = f"{place}, task {task.get('id', number) if isinstance(task, dict) else number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise ConfigError(f"{task_place} has no data: this is not Label Studio's format JSON; export as JSON")
        with entry_errors(task_place):
            annotation = _newest_annotation(task)
            if isinstance(annotation, str):
                left_out[annotation] += 1
                continue
            if any(need(result, "type", str) and result.get("image_rotation") for result in annotation["result"]):
                left_out["rotated in Label Studio"] += 1
                continue
            size, shapes = _shapes(annotation, skipped)
            if size is None or not shapes:
                left_out["no object"] += 1
            else:
                tasks.append((task_place, _image_value(task["data"]), shapes, size))
    return _annotations(tasks, left_out, skipped)


def decode_brush(rle: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Decode Label Studio's run lengths of an RGBA image.

    The header holds the number of values, the bits of a value and of four kinds of lengths. Then come runs: a bit that
    tells a repeated value (1) from single ones (0), two bits for the kind of the length, the length, and the value or
    the single ones. All but the number are stored less 1.

    Returns:
        (height, width); True where any channel is above 0.

    Raises:
        ValueError: If the run lengths are cut off, or not those of an image of this size.
    """
    count = height * width * _CHANNELS
    head = int.from_bytes(rle[:7].ljust(7, b"\0"), "big")
    word = (head >> 19 & 31) + 1
    if len(rle) < 7 or head >> 24 != count or word != 8:
        found = f"{head >> 24} values of {word} bits" if len(rle) >= 7 else "cut off"
        raise ValueError(f"the brush's rle is {found}, must be {count} values of 8 bits for {height} rows of {width}")
    sizes = [(head >> shift & 15) + 1 for shift in (15, 11, 7, 3)]
    values = bytearray(count)
    position = _HEADER
    filled = 0
    available = 8 * len(rle)
    while filled < count:
        # 40 bits hold a run: up to 7 before it, 3 of its kind, 16 of its length and 8 of its value.
        window = int.from_bytes(rle[position >> 3 : (position >> 3) + 5].ljust(5, b"\0"), "big")
        left = 37 - (position & 7)
        kind = window >> left & 7
        left -= sizes[kind & 3]
        length = (window >> left & (1 << sizes[kind & 3]) - 1) + 1
        position += 3 + sizes[kind & 3]
        end = filled + length
        repeated = kind & 4
        after = position + (8 if repeated else 8 * length)
        if after > available or end > count:
            raise ValueError(f"the brush's rle ends after {filled} of {count} values, or a run leads beyond the image")
        if repeated:
            if value := window >> left - 8 & 255:
                values[filled:end] = bytes((value,)) * length
        else:
            bits = int.from_bytes(rle[position >> 3 : (after + 7) >> 3], "big") >> (-after & 7)
            values[filled:end] = (bits & (1 << 8 * length) - 1).to_bytes(length, "big")
        position = after
        filled = end
    return (np.frombuffer(values, np.uint32) != 0).reshape(height, width)


def _newest_annotation(task: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the newest annotation that was not cancelled, or the reason why there is none."""
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list):
        raise ValueError("annotations is not a list")
    if not annotations:
        return "only predictions, not corrected yet" if task.get("predictions") else "no annotation"
    # Of two with the same time, `max` would return the first.
    kept = [each for each in reversed(annotations) if not (isinstance(each, dict) and each.get("was_cancelled"))]
    return max(kept, key=_time) if kept else "skipped by the annotator"


def _time(annotation: Any) -> datetime:
    if not isinstance(annotation, dict):
        raise ValueError(f"an annotation is of type {type(annotation).__name__}, must be an object")
    text = annotation.get("updated_at") or annotation.get("created_at")
    time = _EARLIEST if text is None else datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _shapes(annotation: Mapping[str, Any], skipped: Counter[str]) -> tuple[tuple[int, int] | None, list[_Shape]]:
    """Return height and width, if any result states them, and the regions; count the others in `skipped`."""
    sizes = set()
    shapes: list[_Shape] = []
    for result in need(annotation, "result", list):
        kind = need(result, "type", str)
        if kind not in ("brushlabels", "polygonlabels", "rectanglelabels"):
            skipped[f"of type {kind}"] += 1
            continue
        value = need(result, "value", dict)
        if value.get("rotation"):
            skipped[f"of type {kind}, rotated"] += 1
            continue
        height, width = checked_size(result, "original_height", "original_width")
        sizes.add((height, width))
        names = need(value, kind, list)
        if len(names) != 1 or not isinstance(names[0], str):
            raise ValueError(f"a region has the {kind} {names}, must be one: give it one label in Label Studio")
        if kind == "brushlabels":
            if value.get("format") != "rle":
                raise ValueError(f"the format of a brush is {value.get('format')!r}, must be 'rle'")
            shapes.append(_Brush(checked_name(names[0]), bytes(need(value, "rle", list))))
            continue
        scaled = [part for x, y in _corners(value, kind) for part in (x * width / 100, y * height / 100)]
        region = make_region(checked_name(names[0]), [scaled], height, width)
        if region is None:
            skipped["without an area"] += 1
        else:
            shapes.append(region)
    if len(sizes) > 1:
        raise ValueError(f"its regions state the image sizes {sorted(sizes)}, must be one")
    return next(iter(sizes), None), shapes


def _corners(value: Mapping[str, Any], kind: str) -> list[tuple[float, float]]:
    """Return the corners of a polygon or rectangle in percent of the image's width and height."""
    if kind == "polygonlabels":
        return [(float(x), float(y)) for x, y in need(value, "points", list)]
    left, top, width, height = (float(need(value, key, int, float)) for key in ("x", "y", "width", "height"))
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def _image_value(data: Mapping[str, Any]) -> str:
    """Return the image's address in a task's data: `image`, or else the only value that looks like one."""
    if isinstance(data.get("image"), str):
        return str(data["image"])
    found = [value for value in data.values() if isinstance(value, str) and _looks_like_image(value)]
    if len(found) != 1:
        raise ValueError(f"its data has no image, and {len(found)} values that look like the URI of one, must be one")
    return found[0]


def _looks_like_image(value: str) -> bool:
    return "://" in value or PurePosixPath(_uri_and_path(value)[1]).suffix.lower() in IMAGE_SUFFIXES


def _uri_and_path(value: str) -> tuple[str | None, str]:
    """Return the URI by which storage finds an image, None for what only Label Studio's server knows, and its path."""
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in ("http", "https"):
        return normalise(value), rest
    address = urlsplit(value)
    if address.path.rstrip("/") == "/data/local-files":
        return None, parse_qs(address.query).get("d", [""])[0]
    if separator:
        return None, f"{address.netloc}{unquote(address.path)}"
    if value.startswith("/") and not value.startswith("/data/upload/"):
        return normalise(value), split(value)[1]
    return None, unquote(address.path)


def _annotations(
    tasks: Sequence[tuple[str, str, list[_Shape], tuple[int, int]]], left_out: Counter[str], skipped: Counter[str]
) -> Annotations:
    paths = []
    for place, value, _, _ in tasks:
        with entry_errors(f"{place}, image {value[:200]}"):
            paths.append(checked_path(_uri_and_path(value)[1].lstrip("/")))
    shared = posixpath.commonpath([posixpath.dirname(path) for path in paths]) if paths else ""
    images = []
    for (place, value, shapes, size), path in zip(tasks, paths, strict=True):
        name = posixpath.splitext(path.removeprefix(shared).lstrip("/"))[0]
        paint = partial(_paint, place, shapes, size)
        key = posixpath.basename(path)
        images.append(AnnotatedImage(place, name, key, "name", paint, _uri_and_path(value)[0]))
    used = frozenset(shape.label for _, _, shapes, _ in tasks for shape in shapes)
    return Annotations(dict.fromkeys(sorted(used)), used, images, left_out, skipped)


def _paint(
    place: str, shapes: Sequence[_Shape], size: tuple[int, int], index: Mapping[str, int], uncovered: int
) -> NDArray[np.uint8]:
    with entry_errors(place):
        regions = [shape if isinstance(shape, Region) else shape.region(*size) for shape in shapes]
    return paint_regions(*size, [region for region in regions if region is not None], index, uncovered)
