"""Layout `lists`: the reference code's text files, with images and labels line by line in one order."""

from __future__ import annotations

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import LabelFiles, Layout, Split, pair_up
from pipeline.data.datasets.look_up import absolute, look_up
from pipeline.data.label_spaces import LabelSpace
from pipeline.errors import ConfigError

__all__ = ["LISTS"]


def _fits(folder: DataFolder) -> bool:
    return any(folder.has(f"{split}_image.txt") and folder.has(f"{split}_label.txt") for split in ("train", "val"))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    images, labels = (
        [absolute(folder, line) for line in folder.lines(f"{split}_{kind}.txt")] for kind in ("image", "label")
    )
    source = folder.uri(f"{split}_image.txt")
    if len(images) != len(labels):
        raise ConfigError(
            f"{source} has {len(images)} lines, {split}_label.txt beside it {len(labels)}: line by line, they are pairs"
        )
    found = look_up(folder.storage, [*images, *labels])
    pairs = pair_up(zip(images, labels, strict=True), found, found, source)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes)


LISTS = Layout(
    "lists",
    "train_image.txt and train_label.txt, or val_image.txt and val_label.txt",
    _fits,
    _read,
    plain_labels=True,
)
