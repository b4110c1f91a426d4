"""Data sets of road scenes: CamVid, Cityscapes, and KITTI with the labels of Ros et al."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.files import DataFolder, Files
from pipeline.data.datasets.layout import LabelFiles, LabelledImage, Layout, Split, pair_up
from pipeline.data.label_spaces import CAMVID_COLORS, LABEL_SPACES, LabelSpace
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError

__all__ = ["CAMVID", "CAMVID_32", "CITYSCAPES", "KITTI"]

_SEGNET = LABEL_SPACES["camvid_segnet"]
_CAMVID_FOLDERS = ("CamVid", "")
_IMAGES = "701_StillsRaw_full"
_LABELS = "LabeledApproved_full"

CAMVID_32 = LabelSpace("camvid_32", tuple(CAMVID_COLORS), tuple(color for color, _ in CAMVID_COLORS.values()))


def _find_camvid_segnet(folder: DataFolder) -> DataFolder | None:
    """Return the folder with train or val files of the SegNet tutorial, or None."""
    split = (folder.find(_CAMVID_FOLDERS, (name, f"{name}annot", f"{name}.txt")) for name in ("train", "val"))
    return next((found for found in split if found is not None), None)


def _find_camvid_original(folder: DataFolder) -> DataFolder | None:
    """Return the folder with the original release, or None."""
    return folder.find(_CAMVID_FOLDERS, (_IMAGES, _LABELS))


def _read_camvid(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    """Return a split; the original release takes precedence over the SegNet tutorial's files."""
    original = _find_camvid_original(folder)
    if original is not None:
        classes = [merged for _, merged in CAMVID_COLORS.values()]
        return Split(_original_pairs(original, split), LabelFiles(folder.storage, CAMVID_32), classes)
    pairs = _segnet_pairs(_find_camvid_segnet(folder) or folder, split)
    return Split(pairs, LabelFiles(folder.storage, _SEGNET), _SEGNET.classes)


def _segnet_pairs(camvid: DataFolder, split: str) -> list[LabelledImage]:
    wanted = []
    for line in camvid.lines(f"{split}.txt"):
        # A line has an image path and a label path, or one path for both. Their folders are ignored.
        image, label = (PurePosixPath(path).name for path in (line.split() * 2)[:2])
        wanted.append((camvid.uri(f"{split}/{image}"), camvid.uri(f"{split}annot/{label}")))
    return pair_up(wanted, camvid.files(split), camvid.files(f"{split}annot"), camvid.uri(f"{split}.txt"))


def _original_pairs(camvid: DataFolder, split: str) -> list[LabelledImage]:
    wanted = []
    for line in camvid.lines(f"{split}.txt"):
        # A line may name the frame, its image or its label.
        frame = PurePosixPath(line.split()[0]).name.removesuffix(".png").removesuffix("_L")
        wanted.append((camvid.uri(f"{_IMAGES}/{frame}.png"), camvid.uri(f"{_LABELS}/{frame}_L.png")))
    return pair_up(wanted, camvid.files(_IMAGES), camvid.files(_LABELS), camvid.uri(f"{split}.txt"))


CAMVID = Layout(
    "camvid",
    "train, trainannot and train.txt, or val, valannot and val.txt (SegNet tutorial), or "
    f"{_IMAGES} and {_LABELS} (original), here or in CamVid",
    lambda folder: (_find_camvid_original(folder) or _find_camvid_segnet(folder)) is not None,
    _read_camvid,
)


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


def _read_cityscapes(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    root = folder.uri(f"leftImg8bit/{split}")
    images = folder.files(f"leftImg8bit/{split}")
    labels = folder.files(f"gtFine/{split}")
    # The path of a label follows from that of its image: `aachen/x_leftImg8bit.png` has `aachen/x_gtFine_….png`.
    stems = {
        uri: folder.uri(f"gtFine/{split}") + uri.removeprefix(root).removesuffix(_IMAGE_END)
        for uri in images
        if uri.endswith(_IMAGE_END)
    }
    pairs = pair_up(((uri, _cityscapes_label(stem, labels)) for uri, stem in stems.items()), images, labels, root)
    return Split(pairs, _Labels(folder.storage), _TRAIN_IDS.classes)


def _cityscapes_label(stem: str, labels: Files) -> str:
    """Return the published label file, or its translation to train ids if only that exists."""
    translated = stem + _TRAIN_ID_END
    return translated if translated in labels and stem + _LABEL_ID_END not in labels else stem + _LABEL_ID_END


CITYSCAPES = Layout(
    "cityscapes",
    "leftImg8bit and gtFine",
    lambda folder: folder.has("leftImg8bit") and folder.has("gtFine"),
    _read_cityscapes,
)


_KITTI = LABEL_SPACES["kitti"]
_KITTI_FOLDERS = ("KITTI_SEMANTIC", "")
_KITTI_SPLITS = {"train": "Training_00", "val": "Validation_07"}


def _find_kitti(folder: DataFolder) -> DataFolder | None:
    return folder.find(_KITTI_FOLDERS, _KITTI_SPLITS.values())


def _read_kitti(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    if split not in _KITTI_SPLITS:
        raise ConfigError(f"KITTI has no split {split!r}: choose one of {', '.join(_KITTI_SPLITS)}")
    frames = (_find_kitti(folder) or folder).below(_KITTI_SPLITS[split])
    images = frames.files("RGB")
    labels = frames.files("GT")
    wanted = [(uri, frames.uri("GT") + uri.removeprefix(frames.uri("RGB"))) for uri in images if uri.endswith(".png")]
    return Split(pair_up(wanted, images, labels, frames.root), LabelFiles(folder.storage, _KITTI), _KITTI.classes)


KITTI = Layout(
    "kitti",
    "Training_00 and Validation_07, here or in KITTI_SEMANTIC (Ros et al. 2015)",
    lambda folder: _find_kitti(folder) is not None,
    _read_kitti,
)
