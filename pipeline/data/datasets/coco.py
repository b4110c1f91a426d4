"""Layout `coco`: COCO's object annotations, painted as label images with VOC's 21 classes (paper, Sec. 5).

Categories become classes by name. As in the paper, the data set has only images with at least one object of a VOC
category, and pixels of other categories are background. The paper leaves two questions open, which are decided here:

- Where objects overlap, the smaller one is painted over the larger. COCO draws each object whole and keeps no depth
  order. The smaller of two is mostly in front, or a large one, such as a table or a sofa, surrounds it. Objects of
  other categories hide nothing.
- Crowd regions (`iscrowd`) are ignored where no single object of a VOC category covers them. They are drawn roughly
  around a group, so their pixels are neither surely the class nor surely background; VOC marks such regions as void. A
  crowd region alone does not bring an image into the data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.coco_index import CocoIndex
from pipeline.data.datasets.files import DataFolder
from pipeline.data.datasets.layout import LabelledImage, Layout, Split, pair_up
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace
from pipeline.data.storage import ObjectInfo
from pipeline.errors import ConfigError

__all__ = ["COCO", "VOC_NAMES"]

_SPACE = LABEL_SPACES["voc"]
_YEARS = ("2017", "2014")
# COCO's names of VOC's classes, where the two differ.
VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
_CLASSES = {name: number for number, name in enumerate(_SPACE.classes) if number and name not in VOC_NAMES.values()}
_CLASSES |= {name: _SPACE.classes.index(voc) for name, voc in VOC_NAMES.items()}


@dataclass(frozen=True)
class _Labels:
    """Reader that paints the label of an image from its annotations."""

    index: CocoIndex

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        return self.index.label(int(pair.label_uri.rpartition("#")[2]))


def _annotations(split: str, year: str) -> str:
    """Return the relative path of a split's annotation file."""
    return f"annotations/instances_{split}{year}.json"


def _fits(folder: DataFolder) -> bool:
    return any(folder.has(_annotations(split, year)) for split in ("train", "val") for year in _YEARS)


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    year = next((year for year in _YEARS if folder.has(_annotations(split, year))), None)
    if year is None:
        wanted = " or ".join(folder.uri(_annotations(split, year)) for year in _YEARS)
        raise ConfigError(f"there is no {wanted}: it holds the labels of the split")
    source = folder.uri(_annotations(split, year))
    version = folder.storage.info(source).version
    index = CocoIndex(folder.storage, source, _CLASSES)
    # A label has no file of its own: its URI is the annotation file with the image id as fragment.
    names = {
        f"{source}#{number}": folder.uri(f"{split}{year}/{image.file_name}") for number, image in index.images.items()
    }
    labels = {uri: ObjectInfo(uri, 0, version) for uri in names}
    wanted_pairs = ((image, label) for label, image in names.items())
    pairs = pair_up(wanted_pairs, folder.files(f"{split}{year}"), labels, source)
    return Split(pairs, _Labels(index), _SPACE.classes)


COCO = Layout(
    "coco",
    "annotations/instances_train2017.json or instances_val2017.json, or those of 2014",
    _fits,
    _read,
)
