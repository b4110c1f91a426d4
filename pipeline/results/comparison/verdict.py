"""Verdict of a comparison in a few lines of text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.results.comparison.class_changes import ClassChange
from pipeline.results.comparison.compare import Comparison
from pipeline.results.comparison.score_differences import HIGHER, LOWER, NOT_SHOWN

__all__ = ["FEW", "agreement_sentence", "mean_sentence", "number_notes", "verdict_text"]

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
