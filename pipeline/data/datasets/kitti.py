"""Layout `kitti`: the KITTI frames that Ros et al. 2015 annotated (KITTI_SEMANTIC), as used in the paper.

It has 100 frames of sequence 00 for training and 46 frames of sequence 07 for testing. Labels are in color, with black
for void. The KITTI benchmark's own 200 frames of 2018 have other classes and no validation split.
"""

from __future__ import annotations

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import LabelFiles, Layout, Split, pair_up
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace
from pipeline.errors import ConfigError

__all__ = ["KITTI"]

_SPACE = LABEL_SPACES["kitti"]
_PLACES = ("KITTI_SEMANTIC", "")
_FOLDERS = {"train": "Training_00", "val": "Validation_07"}


def _find(folder: DataFolder) -> DataFolder | None:
    return folder.find(_PLACES, _FOLDERS.values())


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    if split not in _FOLDERS:
        raise ConfigError(f"KITTI has no split {split!r}: choose one of {', '.join(_FOLDERS)}")
    frames = (_find(folder) or folder).below(_FOLDERS[split])
    images = frames.files("RGB")
    labels = frames.files("GT")
    wanted = [(uri, frames.uri("GT") + uri.removeprefix(frames.uri("RGB"))) for uri in images if uri.endswith(".png")]
    return Split(pair_up(wanted, images, labels, frames.root), LabelFiles(folder.storage, _SPACE), _SPACE.classes)


KITTI = Layout(
    "kitti",
    "Training_00 and Validation_07, here or in KITTI_SEMANTIC (Ros et al. 2015)",
    lambda folder: _find(folder) is not None,
    _read,
)
