"""What a layout is: a rule that finds the pairs of a split, and says how their labels are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.labels import decode_label
from pipeline.data.storage import ObjectInfo, Storage
from pipeline.errors import ConfigError

__all__ = [
    "IGNORED",
    "WHOLE",
    "LabelFiles",
    "LabelledImage",
    "Layout",
    "ReadLabel",
    "Split",
    "class_table",
    "pair_up",
]

# Name of the only list of a data set that is not split.
WHOLE = "whole"
# The id of ignored pixels in what a `ReadLabel` returns, whatever the file says.
IGNORED = 255


@dataclass(frozen=True)
class LabelledImage:
    """An image and its label, with what a listing said of their content (ETag)."""

    image_uri: str
    label_uri: str
    version: str | None
    label_version: str | None = None


# Reads the label of a pair: (H, W) uint8 ids, each an index into `Split.classes`, or IGNORED.
ReadLabel = Callable[[LabelledImage], NDArray[np.uint8]]


@dataclass(frozen=True)
class Split:
    """What a layout found.

    Attributes:
        pairs: Images with labels, in any order.
        read_label: Reader of the label of a pair.
        classes: Class that each id stands for; None: ignored.
        place: Name of the folder or table, for messages.
        root: URI to which images are relative when they are divided into train and val; empty: their URIs count.
        unlabeled: URIs of images without a label, which are left out.
        passed_over: Number of files that are no images, by suffix.
        notes: Further sentences for whoever starts a run.
    """

    pairs: Sequence[LabelledImage]
    read_label: ReadLabel
    classes: Sequence[str | None]
    place: str = ""
    root: str = ""
    unlabeled: Sequence[str] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """One way in which data sets are laid out.

    Attributes:
        name: Name as used on the command line.
        looks_for: Contents that a folder must have, for messages.
        fits: Test whether a folder looks like it.
        read: Function that finds the pairs of a split (`train`, `val` or `WHOLE`) for a network with the classes of a
            label space. It raises ConfigError for a split that is not there or not complete.
        has_split: Test whether a folder has a split. Layouts that always come with `train` and `val` say yes to both,
            so that `read` names what is missing.
        gives_way: Whether another layout that fits as well is meant.
        plain_labels: Whether every label is a file of the label space, which a pair alone is enough to read.
    """

    name: str
    looks_for: str
    fits: Callable[[DataFolder], bool]
    read: Callable[[DataFolder, str, LabelSpace], Split]
    has_split: Callable[[DataFolder, str], bool] = lambda folder, split: split != WHOLE
    gives_way: bool = False
    plain_labels: bool = False


@dataclass(frozen=True)
class LabelFiles:
    """Reads labels that are files of one label space."""

    storage: Storage
    space: LabelSpace

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        data = self.storage.read(pair.label_uri)
        return decode_label(data, len(self.space.classes), IGNORED, self.space, name="its label")


def pair_up(
    wanted: Iterable[tuple[str, str]], images: Mapping[str, ObjectInfo], labels: Mapping[str, ObjectInfo], source: str
) -> list[LabelledImage]:
    """Pairs of URIs, with the versions that listings give them.

    Args:
        wanted: URIs of image and label.
        images: what the images' listing shows, by URI.
        labels: what the labels' listing shows.
        source: what asks for them, for messages.

    Raises:
        ConfigError: if there is none, one does not exist, or one image comes twice.
    """
    pairs = list(wanted)
    if not pairs:
        raise ConfigError(f"{source} names no image")
    absent = [uri for pair in pairs for uri, there in zip(pair, (images, labels), strict=True) if uri not in there]
    if absent:
        raise ConfigError(f"{len(absent)} files that {source} asks for do not exist, first {absent[0]}")
    repeated = [uri for uri, count in Counter(image for image, _ in pairs).items() if count > 1]
    if repeated:
        raise ConfigError(f"{source} names {len(repeated)} images twice, first {repeated[0]}: remove the repetition")
    return [LabelledImage(image, label, images[image].version, labels[label].version) for image, label in pairs]


def class_table(classes: Sequence[str | None], space: LabelSpace, layout: str) -> NDArray[np.uint8]:
    """(256,) uint8: for each id of a layout, the class of the same name in the network's label space.

    Raises:
        ConfigError: if the label space lacks one of the names.
    """
    missing = [name for name in classes if name is not None and name not in space.classes]
    if missing:
        raise ConfigError(
            f"layout {layout} gives classes that label space {space.name} lacks, such as {missing[0]!r}: choose the "
            "--label-space of this data set, a recipe for it, or --classes"
        )
    table = np.full(256, space.ignore_label, np.uint8)
    for own, name in enumerate(classes):
        if name is not None:
            table[own] = space.classes.index(name)
    return table
