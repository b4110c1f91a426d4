"""Layout `voc`: PASCAL VOC 2012, with the annotations of Hariharan et al. 2011 (SBD) if they lie beside it.

With SBD, the train split is the paper's (Sec. 4): VOC's train images and all that SBD annotates, in its own train and
val, without any image of VOC's val. If both annotate an image, VOC's annotation counts, which is finer and marks void.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder import DataFolder, Files
from pipeline.data.datasets.layout import LabelFiles, LabelledImage, Layout, Split, pair_up
from pipeline.data.datasets.sbd import decode_sbd
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace
from pipeline.data.storage import Storage

__all__ = ["VOC"]

logger = logging.getLogger(__name__)

_SPACE = LABEL_SPACES["voc"]
_PLACES = ("VOCdevkit/VOC2012", "VOC2012", "")
_SBD_PLACES = ("benchmark_RELEASE/dataset", "VOCdevkit/benchmark_RELEASE/dataset")


@dataclass(frozen=True)
class _Labels:
    """Reader of VOC's label images and SBD's MATLAB files."""

    storage: Storage

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        if pair.label_uri.endswith(".mat"):
            return decode_sbd(self.storage.read(pair.label_uri), len(_SPACE.classes))
        return LabelFiles(self.storage, _SPACE)(pair)


def _find(folder: DataFolder) -> DataFolder | None:
    return folder.find(_PLACES, ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    voc = _find(folder) or folder
    names = _names(voc, f"ImageSets/Segmentation/{split}.txt")
    images = voc.files("JPEGImages")
    labels = voc.files("SegmentationClass")
    wanted = [(voc.uri(f"JPEGImages/{name}.jpg"), voc.uri(f"SegmentationClass/{name}.png")) for name in names]
    pairs = pair_up(wanted, images, labels, voc.uri(f"ImageSets/Segmentation/{split}.txt"))
    if split == "train":
        validation = _names(voc, "ImageSets/Segmentation/val.txt")
        pairs += _more(folder, voc, images, {*names, *validation})
    return Split(pairs, _Labels(folder.storage), _SPACE.classes)


def _more(folder: DataFolder, voc: DataFolder, images: Files, taken: set[str]) -> list[LabelledImage]:
    """Return the pairs that SBD adds to VOC's train split.

    An image that VOC 2012 also has is read from VOC.
    """
    sbd = folder.find(_SBD_PLACES, ("cls", "train.txt", "val.txt"))
    if sbd is None:
        logger.info("%s has no benchmark_RELEASE/dataset beside it: plain VOC train, without SBD", voc.root)
        return []
    names = [name for name in dict.fromkeys(_names(sbd, "train.txt") + _names(sbd, "val.txt")) if name not in taken]
    if not names:
        return []
    by_name = {name: voc.uri(f"JPEGImages/{name}.jpg") for name in names}
    # SBD's images are listed only if VOC lacks some of them.
    if any(uri not in images for uri in by_name.values()):
        images = images | sbd.files("img")
        own = {name: sbd.uri(f"img/{name}.jpg") for name in names}
        by_name = {name: uri if uri in images else own[name] for name, uri in by_name.items()}
    wanted = [(uri, sbd.uri(f"cls/{name}.mat")) for name, uri in by_name.items()]
    return pair_up(wanted, images, sbd.files("cls"), sbd.root)


def _names(folder: DataFolder, path: str) -> list[str]:
    """Return the image names in a list, the first word of each line."""
    return [line.split()[0] for line in folder.lines(path)]


VOC = Layout(
    "voc",
    "JPEGImages, SegmentationClass and ImageSets/Segmentation, here, in VOC2012 or in VOCdevkit/VOC2012",
    lambda folder: _find(folder) is not None,
    _read,
)
