"""Registry of the layouts by name, and detection of a folder's layout."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.data.datasets.coco import COCO
from pipeline.data.datasets.files import DataFolder
from pipeline.data.datasets.folders import FOLDER, FOLDERS
from pipeline.data.datasets.layout import Layout
from pipeline.data.datasets.lists import LISTS, MANIFEST
from pipeline.data.datasets.road_scenes import CAMVID, CITYSCAPES, KITTI
from pipeline.data.datasets.voc import VOC
from pipeline.errors import ConfigError

__all__ = ["AUTO", "LAYOUTS", "find_layout"]

AUTO = "auto"
_ALL = (FOLDERS, VOC, COCO, CAMVID, KITTI, CITYSCAPES, LISTS, MANIFEST, FOLDER)
LAYOUTS: Mapping[str, Layout] = {each.name: each for each in _ALL}


def find_layout(folder: DataFolder, name: str = AUTO) -> Layout:
    """Return the layout with a given name, or for `auto` the one that the folder has.

    Raises:
        ConfigError: If the name is unknown, no layout fits, several layouts fit, or the named one does not fit.
    """
    if name != AUTO and name not in LAYOUTS:
        raise ConfigError(f"unknown layout {name!r}: choose one of {', '.join((AUTO, *LAYOUTS))}")
    candidates = list(LAYOUTS.values()) if name == AUTO else [LAYOUTS[name]]
    fitting = [layout for layout in candidates if layout.fits(folder)]
    # Layouts that give way count only if no other layout fits.
    fitting = [layout for layout in fitting if not layout.gives_way] or fitting
    if not fitting:
        looked_for = "; ".join(f"{layout.looks_for} ({layout.name})" for layout in candidates)
        raise ConfigError(f"{folder.root} holds {_shown(folder)}. Looked for, and did not find: {looked_for}")
    if len(fitting) > 1:
        names = [layout.name for layout in fitting]
        raise ConfigError(f"{folder.root} can be read as {' or '.join(names)}: choose with --layout")
    return fitting[0]


def _shown(folder: DataFolder, most: int = 10) -> str:
    names = sorted(folder.names())
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") or "nothing"
