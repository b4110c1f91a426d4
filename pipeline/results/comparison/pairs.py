"""The images that two runs both segmented, and what their two masks say of each pixel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.ahead import ahead
from pipeline.data.labels import decode_mask
from pipeline.errors import DecodeError, PipelineError
from pipeline.results.comparison.inventory import ANOTHER_LABEL, difference
from pipeline.results.comparison.merge_join import merge_join
from pipeline.results.comparison.rows import ImageRow, image_rows
from pipeline.results.quotients import Floats
from pipeline.results.scores import Matrix, agreement_matrix
from pipeline.results.tables import Run

__all__ = ["Pair", "common_pairs", "compared"]


@dataclass(frozen=True)
class Pair:
    """One image that both runs have in the same version.

    Attributes:
        a, b: its rows.
    """

    a: ImageRow
    b: ImageRow

    @property
    def uri(self) -> str:
        """Of the image."""
        return self.a.uri

    @property
    def ok(self) -> bool:
        """Whether both runs segmented it."""
        return self.a.ok and self.b.ok

    @cached_property
    def counts(self) -> Floats | None:
        """(2, 2, C) of A and B, intersections and unions; None unless both were scored, and by the same label."""
        if self.a.counts is None or self.b.counts is None or difference(self.a, self.b) == ANOTHER_LABEL:
            return None
        return np.stack([self.a.counts, self.b.counts])

    def agreement(self, classes: int) -> Matrix:
        """(C, C) pixels by class in A and class in B.

        Raises:
            DecodeError: if a mask is none, or does not fit the other.
        """
        try:
            first = decode_mask(self.a.mask or b"")
            # Equal masks have equal bytes.
            second = first if self.a.mask == self.b.mask else decode_mask(self.b.mask or b"")
            return agreement_matrix(first, second, classes)
        except (PipelineError, ValueError) as error:
            raise DecodeError(
                f"the masks of {self.uri} cannot be compared: {error}. See what jobs/verify.py says of both runs"
            ) from error


def common_pairs(a: Run, b: Run) -> Iterator[Pair]:
    """Images that can be compared, by URI, with their masks as bytes; a file of each run is in memory at a time."""
    for left, right in merge_join(image_rows(a, masks=True), image_rows(b, masks=True), lambda row: row.uri):
        if left is not None and right is not None and difference(left, right) in (None, ANOTHER_LABEL):
            yield Pair(left, right)


def compared(pairs: Iterator[Pair], classes: int) -> Iterator[tuple[Pair, Matrix | None]]:
    """The same pairs in the same order, each with its agreement; None where one has no mask.

    A few are decoded at a time, by threads: most of the work is Pillow's and done without Python's lock.
    """
    threads = os.cpu_count() or 1

    def work(pair: Pair) -> Matrix | None:
        return pair.agreement(classes) if pair.ok else None

    for pair, result in ahead("compare", work, pairs, count=2 * threads, threads=threads):
        yield pair, result.result()
