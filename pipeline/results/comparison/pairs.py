"""Pairs of rows of the images that two runs have in common, and the agreement of their masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.ahead import prefetch_map
from pipeline.data.labels import decode_mask
from pipeline.errors import DecodeError, PipelineError
from pipeline.results.comparison.inventory import ANOTHER_LABEL, difference
from pipeline.results.comparison.merge_join import merge_join
from pipeline.results.comparison.rows import ImageRow, image_rows
from pipeline.results.statistics.quotients import Floats
from pipeline.results.statistics.scores import Matrix, agreement_matrix
from pipeline.results.tables import Run

__all__ = ["Pair", "common_pairs", "compared"]


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
