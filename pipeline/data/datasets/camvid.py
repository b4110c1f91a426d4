"""Layout `camvid`: CamVid as published by the SegNet tutorial or by its authors.

SegNet tutorial: folders `train`, `trainannot`, `val`, `valannot` and lists `train.txt`, `val.txt`, whose paths begin
with a folder of another machine. Original release: `701_StillsRaw_full` and `LabeledApproved_full` with 32 colors, and
lists of the frames of each split, `train.txt` and `val.txt`, which the release does not contain.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import LabelFiles, LabelledImage, Layout, Split, pair_up
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace

__all__ = ["CAMVID", "CAMVID_32"]

_SEGNET = LABEL_SPACES["camvid_segnet"]
_PLACES = ("CamVid", "")
_IMAGES = "701_StillsRaw_full"
_LABELS = "LabeledApproved_full"

# The published colors (label_colors.txt), and the class of the eleven to which each is usually assigned. MathWorks'
# CamVid example, among others, assigns every one; some authors leave the rarest classes void.
_PUBLISHED: dict[str, tuple[tuple[int, int, int], str | None]] = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "sidewalk"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "sidewalk"),
    "Sidewalk": ((0, 0, 192), "sidewalk"),
    "SignSymbol": ((192, 128, 128), "sign"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "building"),
}
CAMVID_32 = LabelSpace("camvid_32", tuple(_PUBLISHED), tuple(colour for colour, _ in _PUBLISHED.values()))


def _find_segnet(folder: DataFolder) -> DataFolder | None:
    """Return the folder with train or val files of the SegNet tutorial, or None."""
    split = (folder.find(_PLACES, (name, f"{name}annot", f"{name}.txt")) for name in ("train", "val"))
    return next((found for found in split if found is not None), None)


def _find_original(folder: DataFolder) -> DataFolder | None:
    """Return the folder with the original release, or None."""
    return folder.find(_PLACES, (_IMAGES, _LABELS))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    """Return a split; the original release takes precedence over the SegNet tutorial's files."""
    original = _find_original(folder)
    if original is not None:
        classes = [merged for _, merged in _PUBLISHED.values()]
        return Split(_original_pairs(original, split), LabelFiles(folder.storage, CAMVID_32), classes)
    pairs = _segnet_pairs(_find_segnet(folder) or folder, split)
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
    lambda folder: (_find_original(folder) or _find_segnet(folder)) is not None,
    _read,
)
