"""Comparison of two committed runs: counts image by image, scores with intervals, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.storage import Storage, join
from pipeline.results.comparison.pairs import Inventory, common_pairs, compared, refuse_other_classes, take_inventory
from pipeline.results.comparison.schemas import AGREEMENT, COMPARISON
from pipeline.results.comparison.tally import (
    HIGHER,
    LOWER,
    NOT_SHOWN,
    ScoreDifference,
    ScoreDifferences,
    Tally,
    score_differences,
)
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.statistics.scores import Matrix, iou_per_class, ratio
from pipeline.results.tables import Run

__all__ = [
    "FEW",
    "ClassChange",
    "Comparison",
    "agreement_sentence",
    "agreement_table",
    "check_runs",
    "class_changes",
    "compare_runs",
    "comparison_table",
    "default_output",
    "mean_sentence",
    "number_notes",
    "verdict_text",
]


@dataclass(frozen=True)
class ClassChange:
    """Result of a comparison for one class, or for the mean over the classes.

    Attributes:
        class_id: Class id; None for the mean.
        name: Class name; "mean" for the mean.
        score: IoU of both runs.
        images: Number of labeled images whose label holds the class; for the mean, of all labeled images.
        pixels_a: Number of pixels of the class in the masks of A; for the mean, of all pixels.
        pixels_b: Number of pixels of the class in the masks of B; for the mean, of all pixels.
        pixels_both: Number of pixels that have the class in both masks; for the mean, of all pixels that agree.
        agreement: Pixels in both masks divided by pixels in either mask, in [0, 1]; for the mean, the mean of these
            quotients. None where undefined.
    """

    class_id: int | None
    name: str
    score: ScoreDifference
    images: int
    pixels_a: int
    pixels_b: int
    pixels_both: int
    agreement: float | None


def class_changes(
    names: Sequence[str], scores: ScoreDifferences, agreement: Matrix, images: Sequence[int], labelled: int
) -> tuple[list[ClassChange], ClassChange]:
    """Return the result of each class, by id, and the result of their mean.

    Args:
        names: Names of the C classes, by class id.
        scores: IoU of both runs, per class and mean.
        agreement: (C, C) pixel counts; rows are classes in A, columns are classes in B.
        images: (C,) number of images whose label holds each class.
        labelled: Number of compared images with a label.
    """
    # The IoU formula on masks of A and B: pixels in both over pixels in either.
    agreements = iou_per_class(agreement)
    defined = [value for value in agreements if value is not None]
    of_a = agreement.sum(axis=1)
    of_b = agreement.sum(axis=0)
    in_both = agreement.diagonal()
    classes = [
        ClassChange(
            class_id,
            names[class_id],
            scores.classes[class_id],
            images[class_id],
            int(of_a[class_id]),
            int(of_b[class_id]),
            int(in_both[class_id]),
            agreements[class_id],
        )
        for class_id in range(len(names))
    ]
    # The mean's agreement is over the classes that occur in a mask of A or B.
    total = int(agreement.sum())
    both = int(agreement.trace())
    mean = ClassChange(None, "mean", scores.mean, labelled, total, total, both, ratio(sum(defined), len(defined)))
    return classes, mean


def comparison_table(run_ids: tuple[str, str], classes: Sequence[ClassChange], mean: ClassChange) -> pa.Table:
    """Return the table `comparison`: one row per class, by id, then the row of the mean.

    Args:
        run_ids: Run identifiers of A and B.
        classes: Results of the classes, by id.
        mean: Result of the mean.
    """
    return pa.Table.from_pylist([_row(run_ids, change) for change in (*classes, mean)], schema=COMPARISON)


def agreement_table(run_ids: tuple[str, str], names: Sequence[str], agreement: Matrix) -> pa.Table:
    """Return the table `agreement`: one row for each of the C × C pairs of a class in A and a class in B.

    Args:
        run_ids: Run identifiers of A and B.
        names: Names of the C classes, by class id.
        agreement: (C, C) pixel counts; rows are classes in A, columns are classes in B.
    """
    rows = [
        {
            "run_id_a": run_ids[0],
            "run_id_b": run_ids[1],
            "class_id_a": first,
            "class_name_a": names[first],
            "class_id_b": second,
            "class_name_b": names[second],
            "pixels": int(agreement[first, second]),
        }
        for first, second in np.ndindex(*agreement.shape)
    ]
    return pa.Table.from_pylist(rows, schema=AGREEMENT)


def _row(run_ids: tuple[str, str], change: ClassChange) -> dict[str, Any]:
    # Without an interval both ends are null.
    low, high = change.score.interval or (None, None)
    return {
        "run_id_a": run_ids[0],
        "run_id_b": run_ids[1],
        "class_id": change.class_id,
        "class_name": change.name,
        "iou_a": change.score.a,
        "iou_b": change.score.b,
        "difference": change.score.difference,
        "difference_low": low,
        "difference_high": high,
        "verdict": change.score.verdict,
        "images": change.images,
        "pixels_a": change.pixels_a,
        "pixels_b": change.pixels_b,
        "pixels_both": change.pixels_both,
        "agreement": change.agreement,
    }


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

    def write_tables(self, folder: str) -> None:
        """Write the tables as Parquet files with the storage of B; can be called only once.

        Args:
            folder: URI of the folder of the files; older files are replaced.
        """
        tables = {
            "comparison.parquet": comparison_table(self.run_ids, self.classes, self.mean),
            "agreement.parquet": agreement_table(self.run_ids, self.a.classes, self.tally.agreement),
        }
        for name, table in tables.items():
            self.b.storage.write(join(folder, name), parquet_bytes(table))
        for name, path in self.tally.files().items():
            self.b.storage.write_file(join(folder, name), path)


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


# With fewer labeled images, a bootstrap interval is known to be too narrow.
FEW = 30
# Maximum number of classes that one line names.
_NAMED = 6


def verdict_text(comparison: Comparison) -> str:
    """Return the verdict in words: the compared runs and images, whether the runs differ, and in which classes."""
    a, b = comparison.run_ids
    lines = [f"A          {comparison.a.output} ({a})", f"B          {comparison.b.output} ({b})"]
    lines.append(f"images     {'; '.join(number_notes(comparison))}")
    lines.append(f"agreement  {agreement_sentence(comparison)}")
    lines.append(f"mean IoU   {mean_sentence(comparison)}")
    lines += [f"classes    {line}" for line in _class_lines(comparison)]
    return "\n".join(lines)


def number_notes(comparison: Comparison) -> Iterator[str]:
    """Yield the number of compared images, then the number of other images by reason."""
    tally = comparison.tally
    yield f"{tally.compared:,} compared, {tally.labelled:,} of them with a label"
    notes = {
        "segmented in A only": tally.only_a,
        "segmented in B only": tally.only_b,
        "failed in both": tally.neither,
        "compared without a score, because their labels differ": tally.relabelled,
    }
    # Images with another label are compared all the same, so they are not left out.
    left_out = {kind: count for kind, count in comparison.inventory.differing.items() if kind != "with another label"}
    yield from (f"{count:,} {note}" for note, count in {**notes, **left_out}.items() if count)


def agreement_sentence(comparison: Comparison) -> str:
    """Return the share of pixels on which both runs agree, in words."""
    if comparison.agreement is None:
        return "no image was segmented in both runs"
    if comparison.agreement == 1:
        return "all pixels have the same class in both runs"
    return f"{_floored(comparison.agreement)}% of the pixels have the same class in both runs"


def mean_sentence(comparison: Comparison) -> str:
    """Return the mean IoU of both runs and whether it differs, in words."""
    score = comparison.mean.score
    labelled = comparison.tally.labelled
    if not labelled:
        return "unknown: no compared image has the same label in both runs"
    if score.a is None or score.b is None:
        return "undefined"
    found = f"A {100 * score.a:.1f}, B {100 * score.b:.1f}; B − A {_signed(comparison.mean)}"
    if score.verdict is None:
        return f"{found}: too few images for an interval"
    judged = {HIGHER: "B is higher", LOWER: "B is lower", NOT_SHOWN: NOT_SHOWN}[score.verdict]
    return f"{found}: {judged}" + (" (few images: the interval is too narrow)" if labelled < FEW else "")


def _class_lines(comparison: Comparison) -> Iterator[str]:
    if not comparison.tally.labelled:
        return
    for verdict in (HIGHER, LOWER):
        found = [each for each in comparison.classes if each.score.verdict == verdict]
        found.sort(key=lambda each: -abs(each.score.difference or 0))
        if found:
            named = ", ".join(f"{each.name} {_signed(each)}" for each in found[:_NAMED])
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield f"B {verdict} in {len(found)}: {named}{more}"
    not_shown = sum(each.score.verdict == NOT_SHOWN for each in comparison.classes)
    unknown = sum(each.score.verdict is None for each in comparison.classes)
    yield f"{NOT_SHOWN} in {not_shown}" + (f"; undefined or in too few images: {unknown}" if unknown else "")


def _signed(change: ClassChange) -> str:
    text = f"{100 * (change.score.difference or 0):+.1f}"
    if change.score.interval is None:
        return text
    low, high = change.score.interval
    return f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _floored(share: float) -> str:
    # Rounding must not give 100.0 while any pixel differs.
    return f"{min(100 * share, 99.9):.1f}" if share < 1 else "100.0"
