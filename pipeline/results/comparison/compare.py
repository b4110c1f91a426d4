"""Comparison of two committed runs: counts image by image, scores with intervals, and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.data.storage import Storage, join
from pipeline.results.comparison.class_changes import ClassChange, agreement_table, class_changes, comparison_table
from pipeline.results.comparison.inventory import Inventory, refuse_other_classes, take_inventory
from pipeline.results.comparison.pairs import common_pairs, compared
from pipeline.results.comparison.score_differences import score_differences
from pipeline.results.comparison.tally import Tally
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.statistics.scores import ratio
from pipeline.results.tables import Run

__all__ = ["Comparison", "check_runs", "compare_runs", "default_output"]


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison of two runs.

    Attributes:
        a: First run, A.
        b: Second run, B.
        inventory: Counts of the images that both runs have, and of those that differ.
        tally: Sums over the images that both runs segmented.
        classes: Results of the classes, by id.
        mean: Result of the mean over the classes.
    """

    a: Run
    b: Run
    inventory: Inventory
    tally: Tally
    classes: list[ClassChange]
    mean: ClassChange

    @property
    def run_ids(self) -> tuple[str, str]:
        """Return the run identifiers of A and B."""
        return self.a.success["run_id"], self.b.success["run_id"]

    @cached_property
    def agreement(self) -> float | None:
        """Return the share of all pixels that have the same class in both runs; None if no image was compared."""
        return ratio(int(self.tally.agreement.trace()), int(self.tally.agreement.sum()))

    def files(self) -> dict[str, bytes]:
        """Return the tables as Parquet files, by file name; can be called only once."""
        tables = {
            "comparison.parquet": comparison_table(self.run_ids, self.classes, self.mean),
            "agreement.parquet": agreement_table(self.run_ids, self.a.classes, self.tally.agreement),
        }
        return {name: parquet_bytes(table) for name, table in tables.items()} | self.tally.files()


def compare_runs(
    a: str, b: str, storage: Storage | None = None, *, overlap: bool = False, shown: int = 4
) -> Comparison:
    """Compare two committed runs; the files of each run are read one at a time, and masks are decoded pair by pair.

    Args:
        a: URI of run A.
        b: URI of run B.
        storage: Storage to read from; None for the default retries.
        overlap: Whether to compare the images that both runs have, if the images of the runs differ.
        shown: Maximum number of images of each kind to keep for pictures.

    Raises:
        IncompleteRun: If one of the runs is not committed.
        ConfigError: If the runs have different classes, or different images without `overlap`; the message names
            the difference. With `overlap`, if the runs have no image in common.
    """
    # Refuse runs that cannot be compared before any mask is read.
    first, second, inventory = check_runs(a, b, storage or Storage(), overlap=overlap)
    # Count the pixels image by image, then judge the sums.
    tally = Tally((first.success["run_id"], second.success["run_id"]), len(first.classes), shown)
    for pair, agreement in compared(common_pairs(first, second), len(first.classes)):
        tally.add(pair, agreement)
    scores = score_differences(tally.sums, tally.resampled())
    found = class_changes(first.classes, scores, tally.agreement, tally.images.tolist(), tally.labelled)
    return Comparison(first, second, inventory, tally, *found)


def check_runs(a: str, b: str, storage: Storage, *, overlap: bool) -> tuple[Run, Run, Inventory]:
    """Open two runs, and check from their light columns that they can be compared.

    Args:
        a: URI of run A.
        b: URI of run B.
        storage: Storage to read from.
        overlap: Whether it is enough that the runs have an image in common.

    Returns:
        Run A, run B, and the inventory of their images.

    Raises:
        IncompleteRun: If one of the runs is not committed.
        ConfigError: If the runs cannot be compared, as in `compare_runs`.
    """
    first = Run(a, storage)
    second = Run(b, storage)
    refuse_other_classes(first, second)
    inventory = take_inventory(first, second)
    inventory.refuse(overlap=overlap)
    return first, second, inventory


def default_output(a: Run, b: Run) -> str:
    """Return the default folder of a comparison: below the output of run B, named by the run identifier of run A."""
    return join(b.output, "comparison", a.success["run_id"])
