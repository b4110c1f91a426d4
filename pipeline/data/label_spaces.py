"""Classes and label file encodings of published data sets, of the drawn scenes, and of users' own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import ConfigError

__all__ = [
    "CAMVID_COLORS",
    "LABEL_SPACES",
    "OWN",
    "Color",
    "LabelEncoding",
    "LabelSpace",
    "label_space",
    "network_label_space",
]

Color = tuple[int, int, int]
Colour = Color
# Name of the label space of every classes file, and of the label files that a checkpoint describes.
OWN = "own"


@dataclass(frozen=True)
class LabelEncoding:
    """Strict encoding of label files: a value or color that is not listed here is an error.

    Attributes:
        values: Pixel values (0–65535) of each class, by class id.
        ignored: Pixel values that count nowhere.
        colors: RGB colors of each class in color masks, by class id, as far as they are listed. If no color is listed,
            the palette applies to masks that are truly colored.
        ignored_colors: RGB colors that count nowhere.
    """

    def has_all_colors(self) -> bool:
        """Return whether every class has a listed color, so that gray pixels of color files are colors too."""
        return bool(self.colors) and all(self.colors)

    values: tuple[tuple[int, ...], ...]
    ignored: tuple[int, ...] = (255,)
    colors: tuple[tuple[Color, ...], ...] = ()
    ignored_colors: tuple[Color, ...] = ()


@dataclass(frozen=True)
class LabelSpace:
    """Classes and the meaning of the values in their label files.

    Attributes:
        name: Name as used on the command line.
        classes: Class names, by class id.
        palette: RGB colors, by class id.
        id_map: Class id by value in the file, where the two differ. A value that is neither mapped nor a class id nor
            `ignore_label` is an error.
        ignore_label: Value of pixels that count nowhere.
        encoding: Encoding of the label files of user-defined classes, which replaces `id_map`; None for published data
            sets.
        colors: RGB colors of each class in the color files of a published data set, by class id; if empty, those of the
            palette.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    id_map: Mapping[int, int] = field(default_factory=dict)
    ignore_label: int = 255
    encoding: LabelEncoding | None = None
    colors: tuple[tuple[Color, ...], ...] = ()

    def ordered_as(self, classes: Sequence[str]) -> LabelSpace:
        """Return this label space with the class ids of a network that has its classes in another order.

        Args:
            classes: Class names of the network, by class id. If they are not those of the label space, class ids
                correspond, and the label space itself is returned.
        """
        if sorted(classes) != sorted(self.classes):
            return self
        before = [self.classes.index(name) for name in classes]
        now = {class_id: position for position, class_id in enumerate(before)}
        meanings = {class_id: class_id for class_id in before} | dict(self.id_map)
        return replace(
            self,
            classes=tuple(classes),
            palette=tuple(self.palette[class_id] for class_id in before),
            id_map={value: now.get(class_id, class_id) for value, class_id in meanings.items()},
            colors=tuple(self.colors[class_id] for class_id in before) if self.colors else (),
        )

    def file_values(self) -> tuple[int, ...]:
        """Return the label file value of each class, by class id; the lowest one if a class has several."""
        if self.encoding is not None:
            return tuple(min(values) for values in self.encoding.values)
        mapped = {class_id: value for value, class_id in sorted(self.id_map.items(), reverse=True)}
        return tuple(mapped.get(class_id, class_id) for class_id in range(len(self.classes)))


def label_space(name: str) -> LabelSpace:
    """Return the label space with a given name.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name not in LABEL_SPACES:
        raise ConfigError(f"unknown label space {name!r}: choose one of {', '.join(sorted(LABEL_SPACES))}")
    return LABEL_SPACES[name]


def network_label_space(network: Mapping[str, Any]) -> LabelSpace:
    """Return the label space of a network's own label files.

    Args:
        network: Metadata of a checkpoint with the keys `classes`, `palette` and `ignore_label`, and optionally
            `label_values`, `label_ignore`, `label_colors` and `label_ignore_colors`.
    """
    palette = tuple(_color(color) for color in network["palette"])
    ignore_label = int(network["ignore_label"])
    values = network.get("label_values") or [[class_id] for class_id in range(len(palette))]
    ignored = network.get("label_ignore")
    colors = network.get("label_colors") or []
    encoding = LabelEncoding(
        values=tuple(tuple(map(int, each)) for each in values),
        ignored=(ignore_label,) if ignored is None else tuple(map(int, ignored)),
        colors=tuple(tuple(_color(color) for color in each) for each in colors),
        ignored_colors=tuple(_color(color) for color in network.get("label_ignore_colors") or ()),
    )
    return LabelSpace(OWN, tuple(network["classes"]), palette, {}, ignore_label, encoding)


def _color(color: Any) -> Color:
    red, green, blue = color
    return int(red), int(green), int(blue)


def _voc_palette(count: int) -> tuple[Colour, ...]:
    """Return the development kit's color map: bits of the id spread over the high bits of R, G and B."""

    def colour(class_id: int) -> Colour:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((class_id >> (3 * bit + channel)) & 1) << (7 - bit)
        return channels[0], channels[1], channels[2]

    return tuple(colour(class_id) for class_id in range(count))


_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_CAMVID_COLOURS: dict[str, Colour] = {
    "building": (128, 0, 0),
    "tree": (128, 128, 0),
    "sky": (128, 128, 128),
    "car": (64, 0, 128),
    "sign": (192, 128, 128),
    "road": (128, 64, 128),
    "pedestrian": (64, 64, 0),
    "fence": (64, 64, 128),
    "pole": (192, 192, 128),
    "sidewalk": (0, 0, 192),
    "bicyclist": (0, 128, 192),
}
# The published colors (label_colors.txt), and the class of the eleven to which each is usually assigned. MathWorks'
# CamVid example, among others, assigns every one; some authors leave the rarest classes void.
CAMVID_COLORS: Mapping[str, tuple[Color, str | None]] = {
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
# Class order of the SegNet tutorial's index files; `_PAPER_ORDER` is that of the paper's Tables 5 and 6.
_SEGNET_ORDER = (
    "sky",
    "building",
    "pole",
    "road",
    "sidewalk",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
_PAPER_ORDER = tuple(_CAMVID_COLOURS)

# Name, color and labelId of each class, ordered by trainId.
_CITYSCAPES: tuple[tuple[str, Colour, int], ...] = (
    ("road", (128, 64, 128), 7),
    ("sidewalk", (244, 35, 232), 8),
    ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12),
    ("fence", (190, 153, 153), 13),
    ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19),
    ("traffic sign", (220, 220, 0), 20),
    ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22),
    ("sky", (70, 130, 180), 23),
    ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25),
    ("car", (0, 0, 142), 26),
    ("truck", (0, 0, 70), 27),
    ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31),
    ("motorcycle", (0, 0, 230), 32),
    ("bicycle", (119, 11, 32), 33),
)

_STREET_COLOURS: dict[str, Colour] = {
    "sky": (110, 170, 220),
    "building": (165, 85, 70),
    "pole": (235, 220, 130),
    "road": (95, 80, 110),
    "pavement": (200, 150, 200),
    "tree": (70, 130, 50),
    "sign": (250, 120, 30),
    "fence": (90, 100, 170),
    "car": (40, 60, 200),
    "person": (220, 30, 80),
    "cyclist": (0, 190, 190),
}


def _coloured(name: str, order: tuple[str, ...], colours: Mapping[str, Colour]) -> LabelSpace:
    return LabelSpace(name, order, tuple(colours[each] for each in order))


def _camvid(name: str, order: tuple[str, ...], id_map: Mapping[int, int]) -> LabelSpace:
    """Return a label space of the eleven classes, whose color files have the published 32 colors."""
    merged = (tuple(color for color, name in CAMVID_COLORS.values() if name == each) for each in order)
    return replace(_coloured(name, order, _CAMVID_COLOURS), id_map=id_map, colors=tuple(merged))


def _cityscapes(name: str, id_map: Mapping[int, int]) -> LabelSpace:
    return LabelSpace(name, tuple(entry[0] for entry in _CITYSCAPES), tuple(entry[1] for entry in _CITYSCAPES), id_map)


# Label ids of classes without a train id are ignored.
_LABEL_IDS = dict.fromkeys(range(34), 255) | {
    label_id: train_id for train_id, (_, _, label_id) in enumerate(_CITYSCAPES)
}
_SPACES = (
    LabelSpace("voc", _VOC, _voc_palette(len(_VOC))),
    _camvid("camvid", _PAPER_ORDER, {}),
    # The SegNet tutorial writes void pixels as 11.
    _camvid("camvid_segnet", _SEGNET_ORDER, {11: 255}),
    _coloured("kitti", _PAPER_ORDER, _CAMVID_COLOURS),
    _cityscapes("cityscapes", {}),
    _cityscapes("cityscapes_label_ids", _LABEL_IDS),
    _coloured("street_scenes", tuple(_STREET_COLOURS), _STREET_COLOURS),
)
LABEL_SPACES: Mapping[str, LabelSpace] = {space.name: space for space in _SPACES}
