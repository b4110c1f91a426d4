"""Layout `cityscapes`: leftImg8bit and gtFine, by split and city, with published label ids or train ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder import DataFolder, Files
from pipeline.data.datasets.layout import LabelFiles, LabelledImage, Layout, Split, pair_up
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace
from pipeline.data.storage import Storage

__all__ = ["CITYSCAPES"]

_TRAIN_IDS = LABEL_SPACES["cityscapes"]
_LABEL_IDS = LABEL_SPACES["cityscapes_label_ids"]
_IMAGE_END = "_leftImg8bit.png"
_LABEL_ID_END = "_gtFine_labelIds.png"
_TRAIN_ID_END = "_gtFine_labelTrainIds.png"


@dataclass(frozen=True)
class _Labels:
    """Reader of labels whose file name decides between train ids and label ids."""

    storage: Storage

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        space = _TRAIN_IDS if pair.label_uri.endswith(_TRAIN_ID_END) else _LABEL_IDS
        return LabelFiles(self.storage, space)(pair)


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    root = folder.uri(f"leftImg8bit/{split}")
    images = folder.files(f"leftImg8bit/{split}")
    labels = folder.files(f"gtFine/{split}")
    # The path of a label follows from that of its image: `aachen/x_leftImg8bit.png` has `aachen/x_gtFine_….png`.
    stems = {
        uri: folder.uri(f"gtFine/{split}") + uri.removeprefix(root).removesuffix(_IMAGE_END)
        for uri in images
        if uri.endswith(_IMAGE_END)
    }
    pairs = pair_up(((uri, _label(stem, labels)) for uri, stem in stems.items()), images, labels, root)
    return Split(pairs, _Labels(folder.storage), _TRAIN_IDS.classes)


def _label(stem: str, labels: Files) -> str:
    """Return the published label file, or its translation to train ids if only that exists."""
    translated = stem + _TRAIN_ID_END
    return translated if translated in labels and stem + _LABEL_ID_END not in labels else stem + _LABEL_ID_END


CITYSCAPES = Layout(
    "cityscapes",
    "leftImg8bit and gtFine",
    lambda folder: folder.has("leftImg8bit") and folder.has("gtFine"),
    _read,
)
