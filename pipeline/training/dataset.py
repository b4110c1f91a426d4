"""Labelled images of a split, read from a data set as it is laid out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import LabelledImage, class_table
from pipeline.data.datasets.registry import AUTO, find_layout
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, DecodeError, ObjectMissing

__all__ = ["LabelledImage", "LabelledImages"]

Result = TypeVar("Result")


class LabelledImages:
    """A frozen list of pairs, sorted by image, loaded one at a time.

    Args:
        storage: where everything is read.
        data: URI of the data set.
        split: `train` or `val`.
        space: whose class ids the labels are given in.
        layout: how the data set is laid out, by name (docs/datasets.md); `auto` looks.

    Attributes:
        pairs: image and label of each, with their versions.

    Raises:
        ConfigError: if the layout does not fit, the split is empty or an image has no label.
    """

    def __init__(self, storage: Storage, data: str, split: str, space: LabelSpace, layout: str = AUTO) -> None:
        folder = DataFolder(storage, data)
        chosen = find_layout(folder, layout)
        found = chosen.read(folder, split, space)
        self._storage, self._read_label = storage, found.read_label
        self._table = class_table(found.classes, space, chosen.name)
        self.pairs = sorted(found.pairs, key=lambda pair: pair.image_uri)

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """SHA-256 over every URI and version, in order."""
        content = hashlib.sha256()
        for pair in self.pairs:
            line = [pair.image_uri, pair.label_uri, pair.version, pair.label_version]
            content.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image and label.

        Raises:
            ConfigError: if one cannot be decoded, or their sizes differ.
        """
        image, label = self.image(index), self.label(index)
        if image.shape[:2] != label.shape:
            raise ConfigError(
                f"{self.pairs[index].label_uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), its image "
                f"{image.shape[0]}×{image.shape[1]}"
            )
        return image, label

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            ConfigError: if it cannot be decoded: training data are the user's own, and every one counts.
        """
        uri = self.pairs[index].image_uri
        return _usable(uri, lambda: decode_image(self._storage.read(uri)))

    def label(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids of the label space.

        Raises:
            ConfigError: if it cannot be decoded, or holds other classes.
        """
        pair = self.pairs[index]
        return self._table[_usable(pair.label_uri, lambda: self._read_label(pair))]


def _usable(uri: str, load: Callable[[], Result]) -> Result:
    try:
        return load()
    except (DecodeError, ObjectMissing) as error:
        raise ConfigError(f"{uri} cannot be trained on: {error}") from error
