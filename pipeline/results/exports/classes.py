"""The classes that an export speaks of."""

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
    """Those of a run, and which of them are exported.

    Attributes:
        names: of all, by id.
        colours: of all, RGB.
        chosen: ids that are exported.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    chosen: tuple[int, ...]

    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) colours by id; black for those that were not chosen."""
        palette = np.zeros((256, 3), np.uint8)
        for class_id in self.chosen:
            palette[class_id] = self.colours[class_id]
        return palette

    def hex_colour(self, class_id: int) -> str:
        """`#rrggbb`."""
        return "#" + bytes(self.colours[class_id]).hex()


def chosen_classes(run: Run, names: Sequence[str] | None) -> Classes:
    """All classes of a run, or those of these names.

    Raises:
        ConfigError: if the run has no class of a name.
    """
    known = tuple(run.classes)
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigError(f"--classes {unknown[0]} is no class of the run: choose from {', '.join(known)}")
    chosen = tuple(each for each, name in enumerate(known) if names is None or name in names)
    return Classes(known, tuple((r, g, b) for r, g, b in run.success["palette"]), chosen)
