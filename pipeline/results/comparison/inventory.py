"""Inventory of the images of two runs: one pass over the light columns of both, before any mask is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import ConfigError
from pipeline.results.comparison.merge_join import merge_join
from pipeline.results.comparison.rows import ImageRow, image_rows
from pipeline.results.tables import Run

__all__ = ["ANOTHER_LABEL", "Inventory", "difference", "refuse_other_classes", "take_inventory"]

ANOTHER_LABEL = "with another label"
_KINDS = ("only in A", "only in B", "of another version", "with masks of another size", ANOTHER_LABEL)
_EXAMPLES = 3


@dataclass
class Inventory:
    """Counts of the images that two runs have in common, and of those that differ.

    Attributes:
        common: Number of images that both runs have in the same version and mask size.
        differing: Number of images by kind of difference. Images with another label are also counted in `common`.
        examples: First URIs of each kind of difference, at most three.
    """

    common: int = 0
    differing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def add(self, a: ImageRow | None, b: ImageRow | None) -> None:
        """Count an image of one run or of both.

        Args:
            a: Row of the image in A; None if only B has it.
            b: Row of the image in B; None if only A has it.
        """
        kind = difference(a, b)
        row = a or b
        self.common += kind in (None, ANOTHER_LABEL)
        if kind is not None and row is not None:
            self.differing[kind] += 1
            if len(self.examples[kind]) < _EXAMPLES:
                self.examples[kind].append(row.uri)

    def refuse(self, *, overlap: bool) -> None:
        """Raise an error if the images of the two runs differ.

        Args:
            overlap: Whether it is enough that the runs have an image in common.

        Raises:
            ConfigError: If the images differ without `overlap`, or none is common. The message states the number of
                images of each kind of difference and the first URIs.
        """
        found = "; ".join(self._sentence(kind) for kind, count in self.differing.items() if count)
        if found and not overlap:
            raise ConfigError(
                f"A and B have different images: {found}. Give --overlap to compare the {self.common:,} images "
                "that both have in the same version"
            )
        if found and not self.common:
            raise ConfigError(
                f"A and B have no image in the same version: {found}. Segment the same images in both runs"
            )

    def _sentence(self, kind: str) -> str:
        more = ", …" if self.differing[kind] > _EXAMPLES else ""
        return f"{self.differing[kind]:,} {kind} ({', '.join(self.examples[kind])}{more})"


def take_inventory(a: Run, b: Run) -> Inventory:
    """Count the common and the differing images of two runs.

    Both runs are read once, one file of each at a time, and no mask is read.

    Args:
        a: First run, A.
        b: Second run, B.

    Raises:
        IncompleteRun: If the rows of a run are not those of its manifest, or not sorted by URI.
    """
    inventory = Inventory()
    for pair in merge_join(image_rows(a, masks=False), image_rows(b, masks=False), lambda row: row.uri):
        inventory.add(*pair)
    return inventory


def difference(a: ImageRow | None, b: ImageRow | None) -> str | None:
    """Return how an image differs between two runs, as one of the kinds of an inventory; None if it is the same.

    Args:
        a: Row of the image in A; None if only B has it.
        b: Row of the image in B; None if only A has it.
    """
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    if a.version != b.version:
        return "of another version"
    # A failed image has no mask size.
    if a.ok and b.ok and a.size != b.size:
        return "with masks of another size"
    return ANOTHER_LABEL if _labels_differ(a, b) else None


def refuse_other_classes(a: Run, b: Run) -> None:
    """Raise an error if two runs have different classes: their masks are comparable only if equal ids mean the same.

    Args:
        a: First run, A.
        b: Second run, B.

    Raises:
        ConfigError: If the number, the names or the order of the classes differ. The message names the first class
            that differs, or both numbers.
    """
    if a.classes == b.classes:
        return
    if len(a.classes) != len(b.classes):
        how = f"A has {len(a.classes)} classes, B has {len(b.classes)}"
    else:
        class_id = next(each for each, pair in enumerate(zip(a.classes, b.classes, strict=True)) if pair[0] != pair[1])
        how = f"class {class_id} is {a.classes[class_id]!r} in A and {b.classes[class_id]!r} in B"
    raise ConfigError(f"A and B have different classes: {how}. Both runs need the same classes in the same order")


def _labels_differ(a: ImageRow, b: ImageRow) -> bool:
    if a.label_uri != b.label_uri:
        return True
    if not (a.ok and b.ok):
        return False
    if a.targets is None or b.targets is None:
        # Different unless both are None.
        return a.targets is not b.targets
    # The label file may have been replaced between the runs, or read in another label space.
    return not np.array_equal(a.targets, b.targets)
