"""Labeled images of a split, read from a data set as it is laid out, or from a frozen list."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import WHOLE, LabelFiles, LabelledImage, Layout, Split, class_table
from pipeline.data.datasets.registry import AUTO, LAYOUTS, find_layout
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.manifest import describe_passed_over
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, RunConflict
from pipeline.training.preparation.division import Division

__all__ = ["LabelledImage", "LabelledImages"]

Result = TypeVar("Result")


class LabelledImages:
    """A fixed list of pairs, sorted by image, loaded one at a time.

    Args:
        storage: Storage from which everything is read.
        data: URI of the data set.
        split: `train` or `val`.
        space: Label space whose class ids the labels are given in.
        layout: Name of the data set's layout (docs/datasets.md); `auto` looks.
        files: Label space in which the label files are written; None: `space`.
        division: Rule that makes train and val where the data set has no val; None: the default rule, for a folder
            without any split.
        frozen: Pairs that a run has frozen; None: those that are there now.
        optional: Whether the validation split may be empty, since another data set has one.

    Attributes:
        data: URI of the data set.
        layout: Name of the layout that was found.
        pairs: Image and label of each, with their versions.
        unlabeled: URIs of images that were left out because they have no label.
        notes: Sentences about what was left out or passed over.

    Raises:
        ConfigError: If the layout does not fit, or the split is empty.
        RunConflict: If a frozen image is not there as it was.
    """

    def __init__(
        self,
        storage: Storage,
        data: str,
        split: str,
        space: LabelSpace,
        layout: str = AUTO,
        *,
        files: LabelSpace | None = None,
        division: Division | None = None,
        frozen: Sequence[LabelledImage] | None = None,
        optional: bool = False,
    ) -> None:
        folder = DataFolder(storage, data)
        if frozen is None:
            chosen = find_layout(folder, layout)
            found = _read_split(folder, chosen, split, files or space, division, optional=optional)
        else:
            chosen = LAYOUTS[layout]
            found = _frozen_split(folder, chosen, split, files or space, frozen)
        self.data, self.layout = data, chosen.name
        self._storage, self._read_label = storage, found.read_label
        self._table = class_table(found.classes, space, chosen.name)
        self.pairs: Sequence[LabelledImage] = sorted(found.pairs, key=lambda pair: pair.image_uri)
        self.unlabeled = found.unlabeled
        self.notes = _notes(found, split)

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """Return the SHA-256 over every URI and version, in order."""
        content = hashlib.sha256()
        for pair in self.pairs:
            line = [pair.image_uri, pair.label_uri, pair.version, pair.label_version]
            content.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image (H, W, 3) and label (H, W).

        Raises:
            ConfigError: If one cannot be decoded, or their sizes differ.
        """
        image, label = self.image(index), self.label(index)
        if image.shape[:2] != label.shape:
            raise ConfigError(
                f"{self.pairs[index].label_uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), its image "
                f"{image.shape[0]}×{image.shape[1]}: give image and label one size, or remove the pair"
            )
        return image, label

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (H, W, 3) uint8 RGB.

        Raises:
            ConfigError: If it cannot be decoded: training data are the user's own, and every one counts.
        """
        uri = self.pairs[index].image_uri
        return _usable(uri, lambda: decode_image(self._storage.read(uri)))

    def label(self, index: int) -> NDArray[np.uint8]:
        """Return a label, (H, W) uint8 class ids of the label space.

        Raises:
            ConfigError: If it cannot be decoded, or holds other classes.
        """
        pair = self.pairs[index]
        return self._table[_usable(pair.label_uri, lambda: self._read_label(pair))]


def _read_split(
    folder: DataFolder, layout: Layout, split: str, space: LabelSpace, division: Division | None, *, optional: bool
) -> Split:
    """Return a split as the folder has it, or as `division` makes it of a folder without val."""
    has_train, has_val = layout.has_split(folder, "train"), layout.has_split(folder, "val")
    if has_val and division is not None:
        raise ConfigError(
            f"{folder.root} has a val split of its own: leave out --val-fraction and --val-group, or give other --data"
        )
    if not has_val and has_train and division is not None:
        return _divided(layout.read(folder, "train", space), split, division, folder.root, optional=optional)
    if not has_val and not has_train and layout.has_split(folder, WHOLE):
        found = layout.read(folder, WHOLE, space)
        return _divided(found, split, division or Division(), folder.root, optional=optional)
    if not has_val and has_train and split == "val" and optional:
        return replace(layout.read(folder, "train", space), pairs=())
    return layout.read(folder, split, space)


def _frozen_split(
    folder: DataFolder, layout: Layout, split: str, space: LabelSpace, pairs: Sequence[LabelledImage]
) -> Split:
    """Return frozen pairs, and how their labels are read; new files do not matter.

    Raises:
        RunConflict: If a pair is not there as it was.
    """
    if layout.plain_labels:
        return Split(pairs, LabelFiles(folder.storage, space), space.classes)
    found = layout.read(folder, split, space)
    if lost := set(pairs) - set(found.pairs):
        raise RunConflict(
            f"{len(lost)} images of {folder.root} or their labels were replaced or removed since the run began, first "
            f"{min(pair.image_uri for pair in lost)}: put them back, or choose another --output"
        )
    return Split(pairs, found.read_label, found.classes)


def _divided(found: Split, split: str, division: Division, source: str, *, optional: bool) -> Split:
    pairs = sorted(found.pairs, key=lambda pair: pair.image_uri)
    paths = [_relative(pair.image_uri, found.root) for pair in pairs]
    aside = division.is_validation(paths, source, optional=optional)
    chosen = [pair for pair, validates in zip(pairs, aside, strict=True) if validates == (split == "val")]
    alone = division.unmatched(paths)
    notes = [f"--val-group {division.group!r} matches all but {len(alone)} images, first {alone[0]}"] if alone else []
    return replace(found, pairs=chosen, notes=notes)


def _relative(uri: str, root: str) -> str:
    return posixpath.splitext(uri.removeprefix(root).lstrip("/"))[0]


def _notes(found: Split, split: str) -> list[str]:
    notes = []
    if found.unlabeled:
        everything = len(found.pairs) + len(found.unlabeled)
        notes.append(
            f"{len(found.unlabeled)} of {everything} images for {split} have no label and are left out, first "
            f"{found.unlabeled[0]}"
        )
    if found.passed_over:
        notes.append(describe_passed_over(found.passed_over, found.root))
    return [*notes, *found.notes]


def _usable(uri: str, load: Callable[[], Result]) -> Result:
    try:
        return load()
    except (DecodeError, ObjectMissing) as error:
        raise ConfigError(f"{uri} cannot be trained on: {error}") from error
