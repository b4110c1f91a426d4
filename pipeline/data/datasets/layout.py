"""Definition of a layout: a rule that finds the pairs of a split and the reader of their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.files import DataFolder
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

# Name of the only split of a data set that is not divided.
WHOLE = "whole"
# Id of ignored pixels in the result of a `ReadLabel`, whatever value the file has.
IGNORED = 255


@dataclass(frozen=True)
class LabelledImage:
    """Image and its label.

    Attributes:
        image_uri: URI of the image.
        label_uri: URI of the label.
        version: Version of the image's content (ETag) from a listing; None if the listing has none.
        label_version: Version of the label's content (ETag) from a listing; None if the listing has none.
    """

    image_uri: str
    label_uri: str
    version: str | None
    label_version: str | None = None


# Reader of the label of a pair: (H, W) uint8 ids, each an index into `Split.classes`, or IGNORED.
ReadLabel = Callable[[LabelledImage], NDArray[np.uint8]]


@dataclass(frozen=True)
class Split:
    """Pairs of a split and the meaning of their labels.

    Attributes:
        pairs: Images with labels, in any order.
        read_label: Reader of the label of a pair.
        classes: Name of the class for each id; None for an ignored id.
        place: Name of the folder or table, for messages.
        root: URI to which images are relative when they are divided into train and val; if empty, their URIs count.
        unlabeled: URIs of images without a label, which are left out.
        passed_over: Number of files that are not images, by suffix.
        notes: Further sentences for the user who starts a run.
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
    """Known arrangement of a data set's files, with functions that detect and read it.

    Attributes:
        name: Name as used on the command line.
        looks_for: Required content of a folder, for messages.
        fits: Function that tests whether a folder has this layout.
        read: Function that finds the pairs of a split (`train`, `val` or `WHOLE`) for a network with the classes of a
            label space. It raises ConfigError if the split is missing or incomplete.
        has_split: Function that tests whether a folder has a split. Layouts that always come with `train` and `val`
            return True for both, so that `read` names what is missing.
        gives_way: Whether another layout that also fits takes precedence.
        plain_labels: Whether every label is a file of the label space, so that a pair is enough to read it.
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
    """Reader of labels that are files of one label space."""

    storage: Storage
    space: LabelSpace

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        """Return the ids in the label file of a pair, (H, W) uint8."""
        data = self.storage.read(pair.label_uri)
        return decode_label(data, len(self.space.classes), IGNORED, self.space, name="its label")


def pair_up(
    wanted: Iterable[tuple[str, str]], images: Mapping[str, ObjectInfo], labels: Mapping[str, ObjectInfo], source: str
) -> list[LabelledImage]:
    """Return the wanted pairs, with the versions from listings.

    Args:
        wanted: URIs of image and label of each pair.
        images: Listing of the images, by URI.
        labels: Listing of the labels, by URI.
        source: Name of the list or folder that defines the pairs, for messages.

    Raises:
        ConfigError: If there is no pair, a file does not exist, or an image is repeated.
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
    """Return a (256,) uint8 table from the ids of a layout to the class ids of a network.

    Classes correspond by name. All other ids become the label space's `ignore_label`.

    Args:
        classes: Name of the class for each id of the layout; None for an ignored id.
        space: Label space of the network.
        layout: Name of the layout, for messages.

    Raises:
        ConfigError: If the label space lacks one of the names.
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
