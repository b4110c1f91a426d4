"""The images that each stage learns on, and those that it is validated on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.label_spaces import label_space
from pipeline.data.storage import Storage
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import LabelledImage, LabelledImages
from pipeline.training.recipe_schema import StageName

__all__ = ["Images", "Mixture", "Sources"]


class Images(Protocol):
    """A frozen list of images with labels, loaded one at a time."""

    @property
    def pairs(self) -> Sequence[LabelledImage]:
        """What they are."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""

    def label(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids."""

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image and label, of one size."""


class Mixture:
    """Two data sets as one: the images of the first, then those of the second."""

    def __init__(self, first: Images, second: Images) -> None:
        self._first, self._second = first, second
        self.pairs: Sequence[LabelledImage] = [*first.pairs, *second.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        images, place = self._place(index)
        return images.image(place)

    def label(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids."""
        images, place = self._place(index)
        return images.label(place)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image and label, of one size."""
        images, place = self._place(index)
        return images.pair(place)

    def _place(self, index: int) -> tuple[Images, int]:
        before = len(self._first)
        return (self._first, index) if index < before else (self._second, index - before)


class Sources:
    """The splits of a run's data sets.

    Attributes:
        train: the training split of --data.
        val: its validation split.
        splits: every list of images that was read.
        all: all images to learn on: `train`, and those of --extra-data if there are any.

    Raises:
        ConfigError: if a split is empty or an image has no label.
    """

    def __init__(self, config: TrainConfig, storage: Storage) -> None:
        space = label_space(config.recipe.label_space)
        train = LabelledImages(storage, config.data, "train", space, config.layout)
        val = LabelledImages(storage, config.data, "val", space, config.layout)
        self.splits: list[LabelledImages] = [train, val]
        self.train: Images = train
        self.val: Images = val
        self.all: Images = train
        if config.extra_data is not None:
            extra = LabelledImages(storage, config.extra_data, "train", space, config.extra_layout)
            self.splits.append(extra)
            self.all = Mixture(train, extra)
        self._recipe = config.recipe

    def of(self, stage: StageName) -> Images:
        """What a stage learns on."""
        return self.all if self._recipe.stage(stage).extra_data else self.train

    def digest(self) -> str:
        """SHA-256 over every image, label and version: a run's samples are a function of this list."""
        return hashlib.sha256("".join(each.digest() for each in self.splits).encode()).hexdigest()
