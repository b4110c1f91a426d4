"""Index of the objects in a COCO annotation file, by image, with compressed masks."""

from __future__ import annotations

import codecs
import json
import logging
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]

from pipeline.data.datasets.layout import IGNORED
from pipeline.data.filesystems import Transient
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError

__all__ = ["CocoImage", "CocoIndex", "compressed_region", "json_elements", "read_json_elements"]

# Bytes per request.
_CHUNK = 8 * 2**20
# Characters of the longest accepted element. One element of COCO's arrays has a few thousand.
_LONGEST = 64 * 2**20
_BLANKS = re.compile(r"[ \t\r\n]*")
# Characters that may continue a number.
_OF_NUMBERS = frozenset("0123456789+-.eE")
_DECODER = json.JSONDecoder()


def read_json_elements(storage: Storage, uri: str, chunk: int = _CHUNK) -> Iterator[tuple[str, Any]]:
    """Yield the elements of a stored JSON object, as `json_elements` does.

    Args:
        storage: Storage that holds the file.
        uri: URI of the file.
        chunk: Bytes per request.

    Yields:
        (key, element) for each element of a value that is an array, otherwise (key, value).

    Raises:
        ConfigError: If the file is not such an object.
    """
    try:
        yield from json_elements(_text(storage, uri, chunk))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{uri} is no JSON object: {error}; fetch the file again") from error


def json_elements(chunks: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Split a JSON object, given as pieces of its text, into its elements.

    Yields:
        (key, element) for each element of a value that is an array, otherwise (key, value).

    Raises:
        ValueError: If the text is not a JSON object, ends early, or has an element of more than 64 Mi characters.
    """
    text = _Text(chunks)
    for _ in text.members("{", "}"):
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            for _ in text.members("[", "]"):
                yield key, text.value()
        else:
            yield key, text.value()


class _Text:
    """Window that moves over the text."""

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks = iter(chunks)
        self._window = ""
        self._place = 0

    def peek(self) -> str:
        """Return the next character that is not blank, or an empty string at the end."""
        while True:
            blanks = _BLANKS.match(self._window, self._place)
            self._place = blanks.end() if blanks else self._place
            if self._place < len(self._window):
                return self._window[self._place]
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Step over one character.

        Raises:
            ValueError: If the next character is not the expected one.
        """
        found = self.peek()
        if found != expected:
            raise ValueError(f"{found or 'the end'!r} where {expected!r} should be")
        self._place += 1

    def members(self, opening: str, closing: str) -> Iterator[None]:
        """Stop at each member of an array or object, so that the caller can read it."""
        self.take(opening)
        if self.peek() == closing:
            return self.take(closing)
        while True:
            yield
            if self.peek() == closing:
                return self.take(closing)
            self.take(",")

    def value(self) -> Any:
        """Read one whole value.

        Raises:
            ValueError: If the text is not JSON, ends within the value, or the value is too long.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._place)
            except json.JSONDecodeError as error:
                problem = str(error)
            else:
                # A number that the window's edge cuts is still a valid number, and so is the part before its decimal
                # point.
                if end < len(self._window) and self._window[end] not in _OF_NUMBERS:
                    self._place = end
                    return value
                problem = "the text ends within a value"
            if len(self._window) - self._place > _LONGEST or not self._more():
                raise ValueError(problem)

    def _more(self) -> bool:
        """Replace the text that has been read with the next chunk; return whether there was one."""
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._window = self._window[self._place :] + chunk
            self._place = 0
        return chunk is not None


def _text(storage: Storage, uri: str, chunk: int) -> Iterator[str]:
    """Yield the text of a file, one request at a time."""
    # Incremental, because a request may end within a character.
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = storage.info(uri).size
    for start in range(0, size, chunk):
        data = _range(storage, uri, start, min(start + chunk, size))
        yield decoder.decode(data, final=start + chunk >= size)


def _range(storage: Storage, uri: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`."""

    def attempt(filesystem: Any, path: str) -> bytes:
        data: bytes = filesystem.cat_file(path, start=start, end=end)
        if len(data) != end - start:
            raise Transient(f"{end - start} bytes of {uri} were asked for, {len(data)} arrived")
        return data

    return storage.call("read", uri, attempt)


logger = logging.getLogger(__name__)

_POINTS = 3  # number of points of the smallest polygon
_FARTHEST = 1e6  # largest coordinate in pixels; drawing a polygon takes memory in proportion to its length


@dataclass(frozen=True)
class CocoImage:
    """Entry of `images`: name of the file, and its size in pixels."""

    file_name: str
    height: int
    width: int


@dataclass
class _Objects:
    """Columns with one entry per object, and the concatenated masks in COCO's compressed run lengths.

    Attributes:
        image: Image id.
        class_id: Class id, or IGNORED for a crowd region.
        area: Area of the mask in pixels.
        end: Offset in `masks` behind the object's mask; the mask starts at the end of the previous one.
        masks: Masks of all objects.
    """

    image: array[int] = field(default_factory=lambda: array("q"))
    class_id: array[int] = field(default_factory=lambda: array("B"))
    area: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    masks: bytearray = field(default_factory=bytearray)

    def add(self, image: int, class_id: int, area: int, mask: bytes) -> None:
        self.masks += mask
        for column, value in zip(
            (self.image, self.class_id, self.area, self.end), (image, class_id, area, len(self.masks)), strict=True
        ):
            column.append(value)


class CocoIndex:
    """Index of the images that show an object of certain categories, with the masks to paint.

    The file is read twice, because its categories come last, and never again. Memory holds its images and some hundred
    bytes per object.

    Args:
        storage: Storage that holds the file.
        uri: URI of the annotation file.
        classes: Class ids by category name; objects of all other categories are background.

    Attributes:
        images: Images by id; only those with an object of one of the categories that is not a crowd region.

    Raises:
        ConfigError: If the file is not a COCO annotation file, or an object in it is invalid.
    """

    def __init__(self, storage: Storage, uri: str, classes: Mapping[str, int]) -> None:
        images, categories = _images_and_categories(storage, uri, classes)
        objects = _Objects()
        for key, entry in read_json_elements(storage, uri):
            if key == "annotations":
                _add(objects, entry, images, categories, uri)
        image = np.asarray(objects.image)
        class_id = np.asarray(objects.class_id)
        # Painting order within an image: crowd regions first, then objects from the largest to the smallest.
        area = np.where(class_id == IGNORED, np.iinfo(np.int64).max, np.asarray(objects.area))
        order = np.lexsort((-area, image))
        self._class_id = class_id
        self._order = order
        self._sorted = image[order]
        self._ends = np.asarray(objects.end)
        self._masks = bytes(objects.masks)
        shown = set(image[class_id != IGNORED].tolist())
        self.images = {key: value for key, value in images.items() if key in shown}
        logger.info("%s: %d of %d images show one of the classes", uri, len(self.images), len(images))

    def label(self, image_id: int) -> NDArray[np.uint8]:
        """Return the class ids of an image, (H, W) uint8, with background 0."""
        image = self.images[image_id]
        # Column by column, like the masks.
        ids = np.zeros((image.height, image.width), np.uint8, order="F")
        first, last = np.searchsorted(self._sorted, [image_id, image_id + 1])
        for number in self._order[first:last]:
            start = self._ends[number - 1] if number else 0
            end = self._ends[number]
            mask = {"size": [image.height, image.width], "counts": self._masks[start:end]}
            np.copyto(ids, self._class_id[number], where=coco_mask.decode(mask).view(np.bool_))
        return np.ascontiguousarray(ids)


def _images_and_categories(
    storage: Storage, uri: str, classes: Mapping[str, int]
) -> tuple[dict[int, CocoImage], dict[int, int]]:
    """Return the images by id, and the class id of each category that is a class."""
    images: dict[int, CocoImage] = {}
    categories: dict[int, int] = {}
    try:
        for key, entry in read_json_elements(storage, uri):
            if key == "images":
                images[entry["id"]] = CocoImage(str(entry["file_name"]), int(entry["height"]), int(entry["width"]))
            elif key == "categories" and entry["name"] in classes:
                categories[entry["id"]] = classes[entry["name"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{uri}: an entry of images or categories is not COCO's: {error!r}") from error
    if not categories:
        raise ConfigError(f"{uri} has none of the categories {', '.join(classes)}")
    return images, categories


def _add(
    objects: _Objects, entry: Any, images: Mapping[int, CocoImage], categories: Mapping[int, int], uri: str
) -> None:
    """Add the object of an annotation, unless its category is not a class or its mask is empty."""
    try:
        class_id = categories.get(entry["category_id"])
        if class_id is None:
            return
        image = images[entry["image_id"]]
        mask = compressed_region(entry["segmentation"], image.height, image.width)
        area = 0 if mask is None else int(coco_mask.area(mask))
        if mask is not None and area:
            objects.add(entry["image_id"], IGNORED if entry.get("iscrowd") else class_id, area, mask["counts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = entry.get("id") if isinstance(entry, dict) else entry
        raise ConfigError(f"{uri}: annotation {name} is not COCO's: {type(error).__name__}: {error}") from error


def compressed_region(segmentation: Any, height: int, width: int) -> dict[str, Any] | None:
    """Convert polygons (joined) or run lengths into compressed run lengths.

    Args:
        segmentation: List of polygons, or run lengths with the keys `size` and `counts`, as in COCO's annotations.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Compressed run lengths in the form of `pycocotools`; None if no polygon has an area, which takes three points.

    Raises:
        ValueError: If a polygon is invalid, or the run lengths do not fit the size of the image.
    """
    if isinstance(segmentation, list):
        polygons = [list(map(float, polygon)) for polygon in segmentation if len(polygon) >= 2 * _POINTS]
        if any(len(polygon) % 2 or not (np.abs(polygon) < _FARTHEST).all() for polygon in polygons):
            raise ValueError(f"a polygon is a list x, y, x, y, … of numbers below {_FARTHEST:g}")
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)) if polygons else None
    size = segmentation["size"]
    counts = segmentation["counts"]
    counts = _run_lengths(counts) if isinstance(counts, str) else counts
    # pycocotools would return uninitialized memory if run lengths end early.
    if list(size) != [height, width] or sum(counts) != height * width or min(counts) < 0:
        raise ValueError(f"run lengths of {sum(counts)} pixels, size {size}, in an image of {height}×{width}")
    return coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)


def _run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed form of run lengths.

    Each character holds a digit of five bits, the lowest digit first. Bit 32 marks that more digits follow; bit 16 of
    the last digit is the sign. From the fourth number on, each is the difference to the number two positions before it.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
