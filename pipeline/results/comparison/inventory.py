"""Are two runs over the same images? One pass over the light columns of both, before any mask is read."""

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
    """How many images can be compared, and why others cannot.

    Attributes:
        common: images that both runs have in the same version.
        differing: by kind of difference, how many images there are of it; those with another label are common too.
        examples: the first URIs of each kind.
    """

    common: int = 0
    differing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def add(self, a: ImageRow | None, b: ImageRow | None) -> None:
        """Counts an image of one run or both."""
        kind, row = difference(a, b), a or b
        self.common += kind in (None, ANOTHER_LABEL)
        if kind is not None and row is not None:
            self.differing[kind] += 1
            if len(self.examples[kind]) < _EXAMPLES:
                self.examples[kind].append(row.uri)

    def refuse(self, *, overlap: bool) -> None:
        """Ends a comparison of runs over other images.

        Args:
            overlap: whether the images that both have are enough.

        Raises:
            ConfigError: says how many images of each kind there are, and which come first.
        """
        found = "; ".join(self._sentence(kind) for kind, count in self.differing.items() if count)
        if found and not overlap:
            raise ConfigError(
                f"A and B are not over the same images: {found}. Give --overlap to compare the {self.common:,} images "
                "that both have in the same version"
            )
        if found and not self.common:
            raise ConfigError(f"A and B have no image in the same version: {found}. Segment the same images with both")

    def _sentence(self, kind: str) -> str:
        more = ", …" if self.differing[kind] > _EXAMPLES else ""
        return f"{self.differing[kind]:,} {kind} ({', '.join(self.examples[kind])}{more})"


def take_inventory(a: Run, b: Run) -> Inventory:
    """Reads both runs once, a file of each at a time, and no mask."""
    inventory = Inventory()
    for pair in merge_join(image_rows(a, masks=False), image_rows(b, masks=False), lambda row: row.uri):
        inventory.add(*pair)
    return inventory


def difference(a: ImageRow | None, b: ImageRow | None) -> str | None:
    """In which way an image is another one in B than in A; None if it is the same."""
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    if a.version != b.version:
        return "of another version"
    if a.ok and b.ok and a.size != b.size:
        return "with masks of another size"
    return ANOTHER_LABEL if _labels_differ(a, b) else None


def refuse_other_classes(a: Run, b: Run) -> None:
    """Masks can be compared only if their values mean the same.

    Raises:
        ConfigError: if names or their order differ; the message names the first such class.
    """
    if a.classes == b.classes:
        return
    if len(a.classes) != len(b.classes):
        how = f"A has {len(a.classes)} classes, B has {len(b.classes)}"
    else:
        class_id = next(each for each, pair in enumerate(zip(a.classes, b.classes, strict=True)) if pair[0] != pair[1])
        how = f"class {class_id} is {a.classes[class_id]!r} in A and {b.classes[class_id]!r} in B"
    raise ConfigError(f"A and B have different classes: {how}. Only runs of the same classes in the same order compare")


def _labels_differ(a: ImageRow, b: ImageRow) -> bool:
    if a.label_uri != b.label_uri:
        return True
    if not (a.ok and b.ok):
        return False
    if a.targets is None or b.targets is None:
        return a.targets is not b.targets
    # The same name may hold other pixels since, or have been read in another label space.
    return not np.array_equal(a.targets, b.targets)
