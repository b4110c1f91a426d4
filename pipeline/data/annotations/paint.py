"""Annotations of any supported source, painted once into label files and a classes file."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations.coco import AnnotatedImage, Annotations, read_coco
from pipeline.data.annotations.cvat import LARGEST_FILE, LOOKED_FOR, folder_files, read_export, zip_files
from pipeline.data.annotations.label_studio import read_label_studio
from pipeline.data.class_files import (
    BACKGROUND,
    CLASS_FILES,
    IGNORE,
    ClassRow,
    classes_csv,
    find_classes,
    read_classes,
)
from pipeline.data.filesystems import normalise
from pipeline.data.labels import encode_values
from pipeline.data.manifest import IMAGE_SUFFIXES
from pipeline.data.planned_files import PlannedFiles, check_target
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError

__all__ = ["Painted", "PaintingPlan", "plan_painting"]

_Counts = NDArray[np.int64]
_THREADS = 4
_VOID = 255
_MOST_CLASSES = 254  # beside background and void
_UPLOAD_HASH = re.compile("[0-9a-f]{8}-")  # which Label Studio puts before the name of an uploaded file


@dataclass(frozen=True)
class Painted:
    """Outcome of painting.

    Attributes:
        output: Absolute URI of the prefix.
        images: Number of label files.
        pixels: Number of pixels of each class, rarest first.
        void: Number of pixels that count nowhere.
        left_out: Number of images without a label file, by reason.
        missing: Names of the first three images that are not in the folder of images.
        skipped: Number of objects that were not painted, by reason.
        pairs: URI of the list of pairs; None if the images lie beside the labels, or `unlocated`.
        unlocated: Whether the URI of an image is unknown.
    """

    output: str
    images: int
    pixels: Mapping[str, int]
    void: int
    left_out: Mapping[str, int]
    missing: tuple[str, ...]
    skipped: Mapping[str, int]
    pairs: str | None
    unlocated: bool

    def text(self) -> str:
        """Return a summary for a terminal: images, share of each class, everything left out, and the next command."""
        total = sum(self.pixels.values()) + self.void
        lines = [f"{self.images:,} images painted into {self.output}/labels"]
        lines += [f"class {name}: {count / total:.3%} of all pixels" for name, count in self.pixels.items()]
        if self.void:
            lines.append(f"void: {self.void / total:.3%} of all pixels")
        lines += [f"{count:,} images left out: {reason}" for reason, count in self.left_out.items()]
        if self.missing:
            lines.append(f"first missing images: {', '.join(self.missing)}")
        lines += [f"{count:,} objects skipped: {reason}" for reason, count in self.skipped.items()]
        if self.pairs is not None:
            lines.append(f"pairs of images and labels: {self.pairs}")
        elif self.unlocated:
            lines.append(
                f"no pairs.csv, because image URIs are unknown: give --images, or put them in {self.output}/images"
            )
        return "\n".join([*lines, f"next: jobs/train.py custom --data {self.output} --output URI"])


@dataclass(frozen=True)
class _Targets:
    """Values in label files, at most 256, and the class of each (None: void).

    Attributes:
        index: Position in `values` by label.
        uncovered: Position in `values` of pixels that no object covers; one behind the last: there may be none.
    """

    values: Sequence[int]
    names: Sequence[str | None]
    index: Mapping[str, int]
    uncovered: int


@dataclass(frozen=True)
class PaintingPlan:
    """Annotations that were read, checked and paired with images; nothing is painted yet.

    Attributes:
        annotations: Annotations of the source.
        source: URI of the source.
        prefix: Absolute URI of the prefix that training reads.
        classes: URI of the classes file whose values are written; None: a classes file is made.
        targets: Values in the label files.
        placed: Images that get a label file.
        missing: Names of the images that are not in the folder of images.
        left_out: Number of images without a label file, by reason.
        storage: Storage of all URIs.
    """

    annotations: Annotations
    source: str
    prefix: str
    classes: str | None
    targets: _Targets
    placed: Sequence[AnnotatedImage]
    missing: Sequence[str]
    left_out: Mapping[str, int]
    storage: Storage

    @property
    def classes_name(self) -> str:
        """Return the file name of the classes file that is written."""
        return CLASS_FILES[self.classes is not None and self.classes.lower().endswith(".json")]

    def files(self) -> PlannedFiles:
        """Return the files that `paint` would write.

        Raises:
            StorageError: If nothing can be written to the prefix.
        """
        check_target(self.storage, self.prefix)
        files = {
            "labels/*.png": f"{len(self.placed):,} images",
            self.classes_name: f"{len(self.annotations.labels)} classes of the source",
        }
        if _pairs(self.placed, self.prefix) is not None:
            files["pairs.csv"] = f"{len(self.placed):,} rows: one per pair of image and label"
        files |= {f"(left out: {reason})": f"{count:,} images" for reason, count in self.left_out.items()}
        return PlannedFiles(self.prefix, files)

    def paint(self) -> Painted:
        """Write `labels/*.png`, the classes file, and the list of pairs where it is needed.

        Files of the same names are replaced. Smaller objects lie on top of larger ones.

        Raises:
            ConfigError: If pixels that no object covers have no value, or the source shows only one class.
            StorageError: If storage fails.
        """
        storage = self.storage
        targets = self.targets
        counts = _write_labels(self.placed, targets, self.prefix, storage)
        if self.classes is None:
            data = _classes_file(self.annotations, targets, counts, self.source)
        else:
            data = storage.read(self.classes)
        storage.write(f"{self.prefix}/{self.classes_name}", data)
        # Two classes files beside each other contradict each other.
        for other in set(CLASS_FILES) - {self.classes_name}:
            storage.delete(f"{self.prefix}/{other}")
        named = zip(targets.names, counts.tolist(), strict=True)
        pixels = Counter({name: count for name, count in named if name is not None and (count or name != BACKGROUND)})
        return Painted(
            output=self.prefix,
            images=len(self.placed),
            pixels=dict(sorted(pixels.items(), key=lambda item: item[1])),
            void=int(counts.sum()) - pixels.total(),
            left_out=self.left_out,
            missing=tuple(self.missing[:3]),
            skipped=self.annotations.skipped,
            pairs=_write_pairs(self.placed, self.prefix, storage),
            unlocated=any(image.uri is None for image in self.placed),
        )


def plan_painting(
    source: str,
    output: str,
    *,
    images: str | None,
    classes: str | None,
    uncovered: Literal["background", "ignore"],
    storage: Storage,
) -> PaintingPlan:
    """Read annotations, pair them with images, and check them; nothing is written.

    Args:
        source: URI of a COCO JSON, of Label Studio's JSON export, or of a folder or .zip that CVAT exported.
        output: URI of the prefix that training reads.
        images: URI of the folder of images; images that are not in it are left out. None: it is not looked at.
        classes: URI of a classes file whose values are written; None: values count from 0 for background.
        uncovered: Class of pixels that no object covers; a classes file without background makes them void.
        storage: Storage of all URIs.

    Raises:
        ConfigError: If anything in the source, the folder of images or the classes file is wrong.
        StorageError: If storage fails.
    """
    prefix = normalise(output).rstrip("/")
    annotations = _read_source(source, storage)
    if classes is None:
        targets = _own_targets(annotations, uncovered, source)
    else:
        targets = _given_targets(annotations, uncovered, classes, storage)
    placed = annotations.images
    missing: Sequence[str] = ()
    if images is not None:
        placed, missing = _locate(placed, images, storage)
    left_out = annotations.left_out + Counter({"not in the folder of images": len(missing)})
    if not placed:
        reasons = ", ".join(f"{count} images: {reason}" for reason, count in left_out.items()) or "it has no images"
        raise ConfigError(f"{source} has no image to paint ({reasons}): correct the source or --images")
    _refuse_shared_names(placed)
    _refuse_other_values(prefix, targets, storage)
    return PaintingPlan(annotations, source, prefix, classes, targets, placed, missing, left_out, storage)


def _read_source(source: str, storage: Storage) -> Annotations:
    place = normalise(source)
    if storage.exists(source):
        if (size := storage.info(source).size) > LARGEST_FILE:
            raise ConfigError(f"{place} has {size:,} bytes, the limit is {LARGEST_FILE:,}: unpack or divide it")
        data = storage.read(source)
        start = data[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()[:2]
        if start[:1] == b"[":
            return read_label_studio(data, place)
        if start[:1] == b"{":
            return read_coco(data, place)
        if start != b"PK":
            raise ConfigError(f"{place} is no export that can be painted: give {LOOKED_FOR}")
        files = zip_files(data, place)
    else:
        files = folder_files(storage, source)
    return read_export(files)


def _own_targets(annotations: Annotations, uncovered: str, source: str) -> _Targets:
    """Return values in the order of the labels: background 0, classes from 1 on, void 255."""
    names = [name for name in annotations.labels if name not in (BACKGROUND, IGNORE)]
    if len(names) > _MOST_CLASSES:
        raise ConfigError(f"{source} has {len(names)} classes, must be at most {_MOST_CLASSES}: remove some from it")
    index = {name: position for position, name in enumerate([BACKGROUND, *names, IGNORE])}
    return _Targets([*range(len(names) + 1), _VOID], [BACKGROUND, *names, None], index, index[uncovered])


def _given_targets(annotations: Annotations, uncovered: str, uri: str, storage: Storage) -> _Targets:
    """Return the first value of each class of a classes file, and its first ignored value."""
    space = read_classes(storage, uri)
    assert space.encoding is not None
    void = space.encoding.ignored[:1]
    values = [*(own[0] for own in space.encoding.values), *void]
    names = [*space.classes, *(None for _ in void)]
    index = {IGNORE if name is None else name: position for position, name in enumerate(names)}
    if unknown := sorted(annotations.used - index.keys()):
        raise ConfigError(f"{uri} has no class {unknown[0]!r}, which the annotations need: add a row for it")
    # Where there is neither, annotations may still cover every pixel.
    return _Targets(values, names, index, index.get(uncovered, index.get(IGNORE, len(values))))


def _locate(images: Sequence[AnnotatedImage], folder: str, storage: Storage) -> tuple[list[AnnotatedImage], list[str]]:
    """Return the images that lie in a folder, with URIs and the names that pair with them; and the keys of others."""
    root = f"{normalise(folder).rstrip('/')}/"
    paths: dict[tuple[str, str], list[str]] = {}
    for info in storage.list(root):
        path = info.uri.removeprefix(root)
        stem, suffix = posixpath.splitext(path)
        if suffix.lower() in IMAGE_SUFFIXES:
            for key in (("path", path), ("stem", stem), ("name", posixpath.basename(path))):
                paths.setdefault(key, []).append(path)
    placed = []
    missing = []
    for image in images:
        if image.uri is not None and image.uri.startswith(root):
            found = paths.get(("path", image.uri.removeprefix(root)), [])
        else:
            found = paths.get((image.match, image.key), [])
        if not found and image.match == "name" and image.uri is None:
            found = paths.get(("name", _UPLOAD_HASH.sub("", image.key, count=1)), [])
        if len(found) > 1:
            raise ConfigError(f"{image.place} may be {found[0]} or {found[1]} in {folder}: rename one of them")
        if found:
            placed.append(replace(image, uri=root + found[0], name=posixpath.splitext(found[0])[0]))
        else:
            missing.append(image.key)
    return placed, missing


def _refuse_shared_names(images: Sequence[AnnotatedImage]) -> None:
    places: dict[str, str] = {}
    for image in images:
        if image.name in places:
            raise ConfigError(f"{image.place} and {places[image.name]} share the name {image.name}: rename one image")
        places[image.name] = image.place


def _refuse_other_values(prefix: str, targets: _Targets, storage: Storage) -> None:
    """Refuse a prefix whose labels were painted in other values: those of other images stay there.

    Raises:
        ConfigError: If a value or a name has another meaning in the classes file that lies there.
    """
    there = find_classes(storage, prefix)
    space = None if there is None else read_classes(storage, there)
    if space is None or space.encoding is None:
        return
    before = {value: name for name, own in zip(space.classes, space.encoding.values, strict=True) for value in own}
    now = {value: name for value, name in zip(targets.values, targets.names, strict=True) if name is not None}
    for value, name in now.items():
        if before.get(value, name) != name or (name in before.values() and value not in before):
            raise ConfigError(
                f"{there} gives value {value} or class {name!r} another meaning, and labels painted before stay there: "
                f"choose another --output, or give --classes {there}"
            )


def _write_labels(images: Sequence[AnnotatedImage], targets: _Targets, prefix: str, storage: Storage) -> _Counts:
    """Write a label file for each image; return the number of pixels of each value."""

    def write(image: AnnotatedImage) -> _Counts:
        labels = image.paint(targets.index, targets.uncovered)
        if targets.uncovered == len(targets.values) and (labels == targets.uncovered).any():
            raise ConfigError(
                f"{image.place} has pixels that no object covers: add a row {BACKGROUND} or {IGNORE} to classes"
            )
        uri = f"{prefix}/labels/{image.name}.png"
        data = encode_values(labels, targets.values)
        # An equal file stays as it is: a run that was begun with it would take another version for another label.
        if not storage.write_once(uri, data):
            storage.write(uri, data)
        return np.bincount(labels.ravel(), minlength=len(targets.values))

    total = np.zeros(len(targets.values), np.int64)
    with ThreadPoolExecutor(_THREADS) as pool:
        for counts in pool.map(write, images):
            total += counts
    return total


def _classes_file(annotations: Annotations, targets: _Targets, counts: _Counts, source: str) -> bytes:
    """Return a classes file of the source's labels, and of background where pixels have it or could have."""
    shared = Counter(annotations.labels.values())
    rows = []
    for name, position in targets.index.items():
        color = annotations.labels.get(name)
        listed = name in annotations.labels and (name != BACKGROUND or targets.uncovered == position)
        if listed or (name == BACKGROUND and counts[position]):
            rows.append(ClassRow(targets.values[position], name, color if shared[color] == 1 else None))
    names = [row.name for row in rows if row.name != IGNORE]
    if len(names) < 2:
        raise ConfigError(f"{source} shows only the classes {names}: a network needs two, so add another class")
    return classes_csv(rows)


def _pairs(images: Sequence[AnnotatedImage], prefix: str) -> list[tuple[str, str]] | None:
    """Return the pairs of image and label URIs; None if URIs are unknown or all images lie beside the labels."""
    located = [(image.uri, f"{prefix}/labels/{image.name}.png") for image in images if image.uri is not None]
    beside = [f"{prefix}/images/{image.name}" for image in images]
    if len(located) < len(images) or [posixpath.splitext(image)[0] for image, _ in located] == beside:
        return None
    return located


def _write_pairs(images: Sequence[AnnotatedImage], prefix: str, storage: Storage) -> str | None:
    """Write the list of pairs where it is needed; return its URI."""
    uri = f"{prefix}/pairs.csv"
    pairs = _pairs(images, prefix)
    if pairs is None:
        # A list that an earlier run left would be read.
        storage.delete(uri)
        return None
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([("image_uri", "label_uri"), *pairs])
    storage.write(uri, sink.getvalue().encode())
    return uri
