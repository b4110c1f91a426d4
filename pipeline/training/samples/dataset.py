"""Labeled images of a split, read from data sets of any known layout or from a frozen list."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.files import DataFolder
from pipeline.data.datasets.layout import WHOLE, LabelFiles, LabelledImage, Split, class_table
from pipeline.data.datasets.registry import AUTO, find_layout
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.manifest import describe_passed_over
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, RunConflict
from pipeline.training.preparation.division import Division

__all__ = ["DataSet", "LabelledImage", "LabelledImages", "read_split"]

Result = TypeVar("Result")


class LabelledImages:
    """Fixed list of image and label pairs, sorted by image URI and loaded one pair at a time.

    Args:
        storage: Storage from which everything is read.
        data: URI of the data set.
        split: Name of the split, `train` or `val`.
        space: Label space that defines the class ids of the labels.
        layout: Name of the data set's layout (docs/datasets.md); `auto` detects it.
        division: Rule that divides a data set without val into train and val; None: the default rule, for a folder
            without any split.

    Attributes:
        data: URI of the data set.
        layout: Name of the layout that was found.
        pairs: URIs and versions of each image and its label.

    Raises:
        ConfigError: If the layout does not fit, or the split is empty.
    """

    def __init__(
        self,
        storage: Storage,
        data: str,
        split: str,
        space: LabelSpace,
        layout: str = AUTO,
        *,
        division: Division | None = None,
    ) -> None:
        data_set = DataSet(storage, data, space, layout)
        (found,) = read_split([data_set], split, division)
        self._take(data_set, found)

    @classmethod
    def of(cls, data_set: DataSet, found: Split) -> LabelledImages:
        """Return the pairs of a split that has been read already."""
        # __init__ would read the split again.
        images = cls.__new__(cls)
        images._take(data_set, found)
        return images

    def _take(self, data_set: DataSet, found: Split) -> None:
        self.data = data_set.data
        self.layout = data_set.layout
        self._storage = data_set.storage
        self._read_label = found.read_label
        self._table = class_table(found.classes, data_set.space, data_set.layout)
        self.pairs: Sequence[LabelledImage] = sorted(found.pairs, key=lambda pair: pair.image_uri)

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """Return the SHA-256 digest (hex) over all URIs and versions, in order."""
        content = hashlib.sha256()
        for pair in self.pairs:
            line = [pair.image_uri, pair.label_uri, pair.version, pair.label_version]
            content.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return an image, (H, W, 3) uint8 RGB, and its label, (H, W) uint8 class ids.

        Raises:
            ConfigError: If one of them cannot be decoded, or their sizes differ.
        """
        image = self.image(index)
        label = self.label(index)
        if image.shape[:2] != label.shape:
            raise ConfigError(
                f"{self.pairs[index].label_uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), its image "
                f"{image.shape[0]}×{image.shape[1]}: give image and label one size, or remove the pair"
            )
        return image, label

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (H, W, 3) uint8 RGB.

        Raises:
            ConfigError: If it cannot be decoded; training skips no image, as the data are the user's own choice.
        """
        uri = self.pairs[index].image_uri
        return _usable(uri, lambda: decode_image(self._storage.read(uri)))

    def label(self, index: int) -> NDArray[np.uint8]:
        """Return a label, (H, W) uint8 class ids of the label space.

        Raises:
            ConfigError: If it cannot be decoded, or holds values of no class.
        """
        pair = self.pairs[index]
        # The table maps the class ids of the label files to those of the network.
        return self._table[_usable(pair.label_uri, lambda: self._read_label(pair))]


class DataSet:
    """Data set with its detected layout and its label space.

    Args:
        storage: Storage from which everything is read.
        data: URI of the data set.
        space: Label space of the network.
        layout: Name of the layout; `auto` detects it.
        files: Label space that decodes the label files; None: `space`.

    Attributes:
        storage: Storage from which everything is read.
        data: URI of the data set.
        space: Label space of the network.
        layout: Name of the layout that was found.
    """

    def __init__(
        self, storage: Storage, data: str, space: LabelSpace, layout: str = AUTO, files: LabelSpace | None = None
    ) -> None:
        self.storage = storage
        self.data = data
        self.space = space
        self._files = files or space
        self._folder = DataFolder(storage, data)
        self._layout = find_layout(self._folder, layout)
        self.layout = self._layout.name

    def has(self, split: str) -> bool:
        """Return whether the data set has a split: `train`, `val` or `WHOLE`."""
        return self._layout.has_split(self._folder, split)

    def read(self, split: str) -> Split:
        """Return a split that the data set defines: `train`, `val` or `WHOLE`."""
        return self._layout.read(self._folder, split, self._files)

    @cached_property
    def undivided(self) -> Split:
        """All pairs of a data set without val, sorted by image URI and listed once."""
        found = self.read("train" if self.has("train") else WHOLE)
        return replace(found, pairs=sorted(found.pairs, key=lambda pair: pair.image_uri))

    def paths(self) -> list[str]:
        """Return the paths of the images in `undivided`, relative and without extension, by which they are divided."""
        root = self.undivided.root
        return [posixpath.splitext(pair.image_uri.removeprefix(root).lstrip("/"))[0] for pair in self.undivided.pairs]

    def frozen(self, split: str, pairs: Sequence[LabelledImage]) -> Split:
        """Return a split with frozen pairs; files added since the run began do not matter.

        Args:
            split: Name of the split that holds the pairs.
            pairs: Pairs that were frozen when the run began.

        Raises:
            RunConflict: If a pair was replaced or removed.
        """
        # A plain label file can be read from its pair alone; other layouts must be listed again.
        if self._layout.plain_labels:
            return Split(pairs, LabelFiles(self.storage, self._files), self._files.classes)
        found = self.read(split)
        if lost := set(pairs) - set(found.pairs):
            raise RunConflict(
                f"{len(lost)} images of {self.data} or their labels were replaced or removed since the run began, "
                f"first {min(pair.image_uri for pair in lost)}: put them back, or choose another --output"
            )
        return replace(found, pairs=pairs)


def read_split(data_sets: Sequence[DataSet], split: str, division: Division | None = None) -> list[Split]:
    """Return `train` or `val` of each data set; data sets without val are divided together.

    A group of images that spans several data sets therefore stays on one side, and a data set may hold a single image.

    Args:
        data_sets: Data sets of one run.
        split: Name of the split, `train` or `val`.
        division: Rule that the user gave; None: the default rule divides folders without any split, and a folder with
            train alone only adds to train.

    Raises:
        ConfigError: If a split is empty, or a given rule finds no data set to divide.
    """
    # Step 1: divide the paths of all data sets without val as one list, so that groups stay together.
    divided = [each for each in data_sets if _is_divided(each, division)]
    if division is not None and not divided:
        raise ConfigError(f"{data_sets[0].data} has a val split of its own: leave out --val-fraction and --val-group")
    paths = [path for each in divided for path in each.paths()]
    others_validate = any(each.has("val") for each in data_sets)
    rule = division or Division()
    aside = iter(rule.is_validation(paths, data_sets[0].data, optional=others_validate) if divided else ())
    # Step 2: read the split of each data set; `aside` yields its flags in the order of `paths`.
    found = []
    for each in data_sets:
        if each in divided:
            pairs = [pair for pair in each.undivided.pairs if next(aside) == (split == "val")]
            found.append(replace(each.undivided, pairs=pairs, notes=_notes(each.undivided, rule, each.paths())))
        elif split == "val" and not each.has("val") and each.has("train") and (divided or others_validate):
            # The data set has train alone, and others validate: its val is empty.
            found.append(replace(each.read("train"), pairs=(), notes=()))
        else:
            own = each.read(split)
            found.append(replace(own, notes=_notes(own)))
    return found


def _is_divided(data_set: DataSet, division: Division | None) -> bool:
    """Return whether a data set is divided: it has no split at all, or train without val and a rule is given."""
    if data_set.has("val"):
        return False
    return division is not None if data_set.has("train") else data_set.has(WHOLE)


def _notes(found: Split, division: Division | None = None, paths: Sequence[str] = ()) -> list[str]:
    """Return notes for the user about images and files that are left out, and about a division."""
    notes = []
    if found.unlabeled:
        everything = len(found.pairs) + len(found.unlabeled)
        notes.append(
            f"{len(found.unlabeled)} of {everything} images below {found.place} have no label and are left out, first "
            f"{found.unlabeled[0]}"
        )
    if found.passed_over:
        notes.append(describe_passed_over(found.passed_over, found.place))
    if division is not None:
        what = "images" if division.group is None else "groups"
        notes.append(
            f"{found.place} has no val: {division.fraction:.0%} of its {what} are set aside by a hash of names"
        )
        if alone := division.unmatched(paths):
            notes.append(f"--val-group {division.group!r} matches all but {len(alone)} images, first {alone[0]}")
    return notes


def _usable(uri: str, load: Callable[[], Result]) -> Result:
    """Return the result of `load`; an object that is damaged or missing becomes a ConfigError that names it."""
    try:
        return load()
    except (DecodeError, ObjectMissing) as error:
        raise ConfigError(f"{uri} cannot be trained on: {error}") from error
