"""Classes of an export, with their names and colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.results.tables import Run

__all__ = ["Classes", "chosen_classes"]


@dataclass(frozen=True)
class Classes:
    """Classes of a run, and the choice of those that are exported.

    Attributes:
        names: Names of all classes, by id.
        colours: RGB colors of all classes, 0–255, by id.
        chosen: Ids of the exported classes, in ascending order.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    chosen: tuple[int, ...]

    def palette(self) -> NDArray[np.uint8]:
        """Return (256, 3) uint8 RGB colors by class id; black for classes that were not chosen."""
        palette = np.zeros((256, 3), np.uint8)
        for class_id in self.chosen:
            palette[class_id] = self.colours[class_id]
        return palette

    def hex_colour(self, class_id: int) -> str:
        """Return the color of a class as `#rrggbb`."""
        return "#" + bytes(self.colours[class_id]).hex()


def chosen_classes(run: Run, names: Sequence[str] | None) -> Classes:
    """Choose all classes of a run, or those with the given names.

    Args:
        run: Committed run.
        names: Names of the exported classes; None: all classes.

    Raises:
        ConfigError: If the run has no class of a given name.
    """
    known = tuple(run.classes)
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigError(
            f"--classes names {unknown[0]!r}, which is not a class of the run: choose from {', '.join(known)}"
        )
    chosen = tuple(each for each, name in enumerate(known) if names is None or name in names)
    return Classes(known, tuple((r, g, b) for r, g, b in run.success["palette"]), chosen)
