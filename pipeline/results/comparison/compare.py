"""Two runs compared: counted image by image, judged, and written as tables and a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.data.storage import Storage, join
from pipeline.results.comparison.class_changes import ClassChange, agreement_table, class_changes, comparison_table
from pipeline.results.comparison.inventory import Inventory, refuse_other_classes, take_inventory
from pipeline.results.comparison.pairs import common_pairs, compared
from pipeline.results.comparison.score_differences import score_differences
from pipeline.results.comparison.tally import Tally
from pipeline.results.encoding import parquet_bytes
from pipeline.results.scores import ratio
from pipeline.results.tables import Run

__all__ = ["Comparison", "compare_runs", "default_output"]


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        a, b: the runs.
        inventory: which images both have.
        tally: sums over those that both segmented.
        classes: what is said of each class, by id.
        mean: and of their mean.
    """

    a: Run
    b: Run
    inventory: Inventory
    tally: Tally
    classes: list[ClassChange]
    mean: ClassChange

    @property
    def run_ids(self) -> tuple[str, str]:
        """Of A and B."""
        return self.a.success["run_id"], self.b.success["run_id"]

    @cached_property
    def agreement(self) -> float | None:
        """Share of all pixels that have the same class in both; None if no image was compared."""
        return ratio(int(self.tally.agreement.trace()), int(self.tally.agreement.sum()))

    def files(self) -> dict[str, bytes]:
        """The tables, by name; once."""
        tables = {
            "comparison.parquet": comparison_table(self.run_ids, self.classes, self.mean),
            "agreement.parquet": agreement_table(self.run_ids, self.a.classes, self.tally.agreement),
        }
        return {name: parquet_bytes(table) for name, table in tables.items()} | self.tally.files()


def compare_runs(
    a: str, b: str, storage: Storage | None = None, *, overlap: bool = False, shown: int = 4
) -> Comparison:
    """Compares two committed runs; files of each are read one at a time, masks decoded pair by pair.

    Args:
        a, b: their URIs.
        storage: how to read; None = default retries.
        overlap: whether to compare the images that both have if others have only one.
        shown: images of each kind to keep for pictures.

    Raises:
        IncompleteRun: if one is not committed.
        ConfigError: if they have other classes, or other images without `overlap`; the message says which.
    """
    storage = storage or Storage()
    first, second = Run(a, storage), Run(b, storage)
    refuse_other_classes(first, second)
    inventory = take_inventory(first, second)
    inventory.refuse(overlap=overlap)
    tally = Tally((first.success["run_id"], second.success["run_id"]), len(first.classes), shown)
    for pair, agreement in compared(common_pairs(first, second), len(first.classes)):
        tally.add(pair, agreement)
    scores = score_differences(tally.sums, tally.resampled())
    found = class_changes(first.classes, scores, tally.agreement, tally.images.tolist(), tally.labelled)
    return Comparison(first, second, inventory, tally, *found)


def default_output(comparison: Comparison) -> str:
    """Where a comparison goes if nothing else is said: below B, by the name of A."""
    return join(comparison.b.output, "comparison", comparison.run_ids[0])
