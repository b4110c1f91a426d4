"""Images that two runs have in common, and the agreement of their masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.concurrency import prefetch_map
from pipeline.data.labels import decode_mask
from pipeline.errors import ConfigError, DecodeError, PipelineError
from pipeline.results.comparison.rows import ImageRow, image_rows, merge_join
from pipeline.results.statistics.scores import Floats, Matrix, agreement_matrix
from pipeline.results.tables import Run

__all__ = [
    "ANOTHER_LABEL",
    "Inventory",
    "Pair",
    "common_pairs",
    "compared",
    "difference",
    "refuse_other_classes",
    "take_inventory",
]

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


@dataclass(frozen=True)
class Pair:
    """Rows of one image that both runs have in the same version.

    Attributes:
        a: Row of the image in A.
        b: Row of the image in B.
    """

    a: ImageRow
    b: ImageRow

    @property
    def uri(self) -> str:
        """Return the URI of the image."""
        return self.a.uri

    @property
    def ok(self) -> bool:
        """Return whether both runs segmented the image."""
        return self.a.ok and self.b.ok

    @cached_property
    def counts(self) -> Floats | None:
        """Return (2, 2, C) pixel counts: runs A and B, intersections and unions, classes.

        None unless both runs scored the image by the same label.
        """
        if self.a.counts is None or self.b.counts is None or difference(self.a, self.b) == ANOTHER_LABEL:
            return None
        return np.stack([self.a.counts, self.b.counts])

    def agreement(self, classes: int) -> Matrix:
        """Count the image's pixels by pair of classes.

        Args:
            classes: Number of classes C.

        Returns:
            (C, C) pixel counts; rows are classes in A, columns are classes in B.

        Raises:
            DecodeError: If a mask cannot be decoded, the masks differ in size, or a class id is out of range.
        """
        try:
            first = decode_mask(self.a.mask or b"")
            # Equal bytes decode to equal masks, so unchanged images are decoded once.
            second = first if self.a.mask == self.b.mask else decode_mask(self.b.mask or b"")
            return agreement_matrix(first, second, classes)
        except (PipelineError, ValueError) as error:
            raise DecodeError(
                f"the masks of {self.uri} cannot be compared: {error}. Run jobs/verify.py on both runs"
            ) from error


def common_pairs(a: Run, b: Run) -> Iterator[Pair]:
    """Yield the images that two runs have in common, by URI, with their masks as bytes.

    One file of each run is in memory at a time.

    Args:
        a: First run, A.
        b: Second run, B.
    """
    for left, right in merge_join(image_rows(a, masks=True), image_rows(b, masks=True), lambda row: row.uri):
        if left is not None and right is not None and difference(left, right) in (None, ANOTHER_LABEL):
            yield Pair(left, right)


def compared(pairs: Iterator[Pair], classes: int) -> Iterator[tuple[Pair, Matrix | None]]:
    """Yield each pair with its agreement matrix, in the same order; None instead if a run did not segment the image.

    Threads decode several pairs at a time, because most of the work is in Pillow, which releases Python's lock.

    Args:
        pairs: Pairs with their masks.
        classes: Number of classes C.

    Raises:
        DecodeError: If the masks of a pair cannot be compared.
    """
    # Two pairs per thread are taken in advance, so that threads stay busy while the caller uses a result.
    threads = os.cpu_count() or 1

    def work(pair: Pair) -> Matrix | None:
        return pair.agreement(classes) if pair.ok else None

    for pair, result in prefetch_map("compare", work, pairs, count=2 * threads, threads=threads):
        yield pair, result.result()
