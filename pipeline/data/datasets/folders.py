"""Layout `folders`: `<split>/images` and `<split>/labels`, paired by relative path without extension."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import LabelFiles, Layout, Split, pair_up
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.manifest import IMAGE_SUFFIXES, pair_labels
from pipeline.errors import ConfigError

__all__ = ["FOLDERS"]


def _fits(folder: DataFolder) -> bool:
    return folder.has("train/images") or folder.has("val/images")


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    split_folder = folder.below(split)
    root, label_root = split_folder.uri("images"), split_folder.uri("labels")
    images, labels = split_folder.files("images"), split_folder.files("labels")
    uris = [uri for uri in images if PurePosixPath(uri).suffix.lower() in IMAGE_SUFFIXES]
    if not uris:
        raise ConfigError(f"{root} holds no image: --data needs train and val, each with images and labels")
    by_image = pair_labels(root, label_root, uris, labels.values())
    bare = [uri for uri in uris if uri not in by_image]
    if bare:
        raise ConfigError(f"{len(bare)} of {len(uris)} images have no label in {label_root}, first {bare[0]}")
    pairs = pair_up(by_image.items(), images, labels, root)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes)


FOLDERS = Layout("folders", "train/images and train/labels, or val/images and val/labels", _fits, _read)
