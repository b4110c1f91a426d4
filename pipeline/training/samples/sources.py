"""Training and validation images of a run, gathered from one or several data sets."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.prediction.views import WorkingSize, resize_image
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError
from pipeline.training.config import TrainConfig
from pipeline.training.preparation.division import DEFAULT_FRACTION, Division, read_list
from pipeline.training.recipes.schema import StageName
from pipeline.training.samples.dataset import DataSet, LabelledImage, LabelledImages, read_split

__all__ = ["SPLITS", "Images", "Mixture", "Resized", "Sources", "evenly_spread"]

SPLITS = ("train", "val", "extra")


class Images(Protocol):
    """A fixed list of images with labels, loaded one at a time."""

    @property
    def pairs(self) -> Sequence[LabelledImage]:
        """URIs and versions of images and labels."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (H, W, 3) uint8 RGB."""

    def label(self, index: int) -> NDArray[np.uint8]:
        """Return a label, (H, W) uint8 class ids."""

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image and label, of one size."""


class Mixture:
    """Concatenation of several lists of images, in the given order.

    Args:
        parts: Lists of images.
    """

    def __init__(self, *parts: Images) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(len(part) for part in parts))
        self.pairs: Sequence[LabelledImage] = [pair for part in parts for pair in part.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (H, W, 3) uint8 RGB."""
        images, place = self._place(index)
        return images.image(place)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Return a label, (H, W) uint8 class ids."""
        images, place = self._place(index)
        return images.label(place)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image and label, of one size."""
        images, place = self._place(index)
        return images.pair(place)

    def _place(self, index: int) -> tuple[Images, int]:
        """Return the list that holds the image with this index, and the position in that list."""
        part = next(number for number, end in enumerate(self._ends) if index < end)
        return self._parts[part], index - (self._ends[part] - len(self._parts[part]))


class Resized:
    """Images and labels resized to the working size of training.

    Args:
        images: Images and labels at their original size.
        working: Working size, which prediction uses as well.
    """

    def __init__(self, images: Images, working: WorkingSize) -> None:
        self._images = images
        self._working = working
        self.pairs = images.pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, (H, W, 3) uint8 RGB, resized exactly as for prediction."""
        image = self._images.image(index)
        return resize_image(image, self._working.of(*image.shape[:2]))

    def label(self, index: int) -> NDArray[np.uint8]:
        """Return a label, (H, W) uint8 class ids, resized by nearest neighbor."""
        return self._label(self._images.label(index))

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image and label, of one size."""
        image, label = self._images.pair(index)
        return resize_image(image, self._working.of(*image.shape[:2])), self._label(label)

    def _label(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self._working.of(*label.shape)
        return np.array(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))


class Sources:
    """Splits of a run's data sets, listed anew or read from the frozen lists of the run.

    Args:
        config: Configuration of the run.
        storage: Storage from which everything is read.

    Attributes:
        own_train: Training split of --data at the original size of the images.
        train: Training split of --data at the working size.
        val: Validation split of --data at the original size of the images, at which it is scored.
        working_val: Validation split of --data at the working size, the input of the network.
        all: All training images: `train`, and the images of --extra-data if there are any.
        splits: Lists by name of the split (`train`, `val`, `extra`), one for each data set.

    Raises:
        ConfigError: If a split is empty, an image occurs twice, or an image has no label and --require-labels is set.
        RunConflict: If a frozen image was replaced or removed.
    """

    def __init__(self, config: TrainConfig, storage: Storage) -> None:
        self._recipe = config.recipe
        self._notes: list[str] = []
        self.splits: dict[str, list[LabelledImages]]
        self.splits = self._find(config, storage) if config.frozen is None else _read_frozen(config, storage)
        self._assemble()

    def _find(self, config: TrainConfig, storage: Storage) -> dict[str, list[LabelledImages]]:
        """Return the lists of every split, read from the data sets in their current state."""
        data_sets = [_data_set(config, storage, data, config.layout) for data in config.data]
        # Without an explicit rule, only folders without any split are divided, by the default rule.
        division = None
        if config.val_fraction is not None or config.val_group is not None:
            division = Division(config.val_fraction or DEFAULT_FRACTION, config.val_group)
        found = {split: read_split(data_sets, split, division) for split in ("train", "val")}
        splits = {
            split: [LabelledImages.of(*each) for each in zip(data_sets, found[split], strict=True)] for split in found
        }
        if config.extra_data is not None:
            extra = _data_set(config, storage, config.extra_data, config.extra_layout)
            found["extra"] = read_split([extra], "train")
            splits["extra"] = [LabelledImages.of(extra, found["extra"][0])]
        everything = [each for split in found.values() for each in split]
        # Both splits of a data set may give the same note; each is kept once, in order.
        self._notes = list(dict.fromkeys(note for each in everything for note in each.notes))
        bare = [uri for each in everything for uri in each.unlabeled]
        if bare and config.require_labels:
            raise ConfigError(
                f"{len(set(bare))} images have no label, first {bare[0]}: add labels, or leave out --require-labels"
            )
        _refuse_repeated(splits)
        return splits

    def _assemble(self) -> None:
        """Set the attributes that are views of `splits`."""
        self.own_train: Images = _as_one(self.splits["train"])
        self.train: Images = self._at_working_size(self.splits["train"])
        self.val: Images = _as_one(self.splits["val"])
        self.working_val: Images = self._at_working_size(self.splits["val"])
        self.all: Images = self.train
        if "extra" in self.splits:
            self.all = self._at_working_size([*self.splits["train"], *self.splits["extra"]])

    def leave_out(self, image_uris: Collection[str]) -> None:
        """Remove images from all splits.

        Args:
            image_uris: URIs of the images to remove.
        """
        for images in (each for split in self.splits.values() for each in split):
            images.pairs = [pair for pair in images.pairs if pair.image_uri not in image_uris]
        self._assemble()

    def of(self, stage: StageName) -> Images:
        """Return the training images of a stage."""
        return self.all if self._recipe.stage(stage).extra_data else self.train

    def digest(self) -> str:
        """Return the SHA-256 digest (hex) over all images, labels and versions, on which a run's samples depend."""
        lists = [each for split in SPLITS for each in self.splits.get(split, ())]
        return hashlib.sha256("".join(each.digest() for each in lists).encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return notes for the user about images left out, files passed over, and divided data sets."""
        return self._notes

    def _at_working_size(self, lists: Sequence[LabelledImages]) -> Images:
        images = _as_one(lists)
        working = self._recipe.working_size()
        return images if working is None else Resized(images, working)


def evenly_spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `count`, evenly spread and in order."""
    chosen: list[int] = np.unique(np.linspace(0, count - 1, most).astype(int)).tolist()
    return chosen


def _as_one(lists: Sequence[LabelledImages]) -> Images:
    return lists[0] if len(lists) == 1 else Mixture(*lists)


def _data_set(config: TrainConfig, storage: Storage, data: str, layout: str) -> DataSet:
    own = config.classes_of(config.data.index(data)) if data in config.data else None
    return DataSet(storage, data, config.recipe.space(), layout, None if own is None else own.space())


def _refuse_repeated(splits: Mapping[str, Sequence[LabelledImages]]) -> None:
    """Refuse images that occur in several data sets, as one could be in both train and val.

    Raises:
        ConfigError: If an image occurs more than once; the message names it.
    """
    lists = [each for split in ("train", "val") for each in splits[split]]
    counts = Counter(pair.image_uri for each in lists for pair in each.pairs)
    if repeated := sorted(uri for uri, count in counts.items() if count > 1):
        raise ConfigError(
            f"{len(repeated)} images are in --data twice, first {repeated[0]}: remove each from all lists and "
            "folders but one"
        )


def _read_frozen(config: TrainConfig, storage: Storage) -> dict[str, list[LabelledImages]]:
    """Return the lists of every split, read from the lists that were frozen when the run began."""
    lists = {} if config.frozen is None else config.frozen.lists
    splits: dict[str, list[LabelledImages]] = {}
    for split, path in lists.items():
        splits[split] = []
        for data, layout, pairs in read_list(storage, config.output, path):
            data_set = _data_set(config, storage, data, layout)
            # The images of --extra-data are the training split of that data set.
            found = data_set.frozen("train" if split == "extra" else split, pairs)
            splits[split].append(LabelledImages.of(data_set, found))
    return splits
