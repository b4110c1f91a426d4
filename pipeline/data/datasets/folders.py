"""Layouts `folders` and `folder`: images beside labels, paired by relative path without extension.

`folders` has `train` and `val`, each with `images` and `labels`. `folder` covers other common forms: `images` or `imgs`
beside `labels`, `masks` or `annotations`, without splits, or with `train` and `val` inside or above them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath

from pipeline.data.datasets.files import DataFolder
from pipeline.data.datasets.layout import WHOLE, LabelFiles, Layout, Split, pair_up
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.manifest import IMAGE_SUFFIXES, pair_labels
from pipeline.errors import ConfigError

__all__ = ["FOLDER", "FOLDERS"]

_IMAGES = ("images", "imgs")
_LABELS = ("labels", "masks", "annotations")
_SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid")}


@dataclass(frozen=True)
class _Place:
    """Relative paths of the images and the labels of a split."""

    images: str
    labels: str


def _find(folder: DataFolder, split: str) -> _Place | None:
    """Return the place of a split, or None; the split `WHOLE` has all images of a data set without splits."""
    for images, labels in product(_IMAGES, _LABELS):
        if split == WHOLE:
            if _has_images(folder, images) and _has_labels(folder, labels):
                return _Place(images, labels)
            continue
        for name in _SPLITS.get(split, (split,)):
            # Splits above (`train/images`), then splits inside (`images/train`).
            if folder.has(f"{name}/{images}") and folder.has(f"{name}/{labels}"):
                return _Place(f"{name}/{images}", f"{name}/{labels}")
            if folder.has(f"{images}/{name}") and folder.has(f"{labels}/{name}"):
                return _Place(f"{images}/{name}", f"{labels}/{name}")
    return None


def _has_images(folder: DataFolder, images: str) -> bool:
    """Return whether a folder holds images that are not divided into splits."""
    # In a folder with splits, other entries beside them (such as test) belong to no split.
    splits = {name for names in _SPLITS.values() for name in names}
    return images in folder.names() and not splits & folder.below(images).names()


def _has_labels(folder: DataFolder, labels: str) -> bool:
    """Return whether a folder holds masks or folders, and not only the files of annotation tools."""
    if labels not in folder.names():
        return False
    suffixes = {PurePosixPath(name).suffix.lower() for name in folder.below(labels).names()}
    return not suffixes or bool(suffixes & (IMAGE_SUFFIXES | {""}))


def _has_split(folder: DataFolder, split: str) -> bool:
    return _find(folder, split) is not None or (split != WHOLE and folder.has(f"{split}/images"))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    # A missing split is reported under its usual name.
    place = _find(folder, split) or _Place(f"{split}/images", f"{split}/labels")
    root = folder.uri(place.images)
    label_root = folder.uri(place.labels)
    images = folder.files(place.images)
    labels = folder.files(place.labels)
    uris = [uri for uri in images if PurePosixPath(uri).suffix.lower() in IMAGE_SUFFIXES]
    if not uris:
        raise ConfigError(
            f"{root} holds no image: --data needs train and val, each with images and labels, or images beside labels; "
            "--val-fraction 0.1 takes a share of the images for validation"
        )
    by_image = pair_labels(root, label_root, uris, labels.values())
    bare = [uri for uri in uris if uri not in by_image]
    if len(bare) == len(uris):
        stem = PurePosixPath(uris[0]).with_suffix("").name
        raise ConfigError(
            f"none of {len(uris)} images below {root} has a label below {label_root}: looked for one named "
            f"{stem}.png or {stem}_mask.png there"
        )
    passed_over = Counter(
        PurePosixPath(uri).suffix.lower() for uri in images if PurePosixPath(uri).suffix.lower() not in IMAGE_SUFFIXES
    )
    pairs = pair_up(by_image.items(), images, labels, root)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes, root, root, bare, passed_over)


FOLDERS = Layout(
    "folders",
    "train/images and train/labels, or val/images and val/labels",
    lambda folder: folder.has("train/images") or folder.has("val/images"),
    _read,
    _has_split,
    plain_labels=True,
)
FOLDER = Layout(
    "folder",
    "images or imgs beside labels, masks or annotations, perhaps inside or above train and val",
    lambda folder: any(_find(folder, split) is not None for split in (WHOLE, "train", "val")),
    _read,
    _has_split,
    gives_way=True,
    plain_labels=True,
)
