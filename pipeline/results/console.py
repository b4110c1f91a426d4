"""Per-class score table and summary of a run for the terminal output of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.results.tables import Run

__all__ = ["class_table", "run_text"]

# Characters of a bar at an IoU of 1.
_BAR = 30


def class_table(rows: Sequence[Mapping[Any, Any]], mean_iou: float | None, *, share: bool = True) -> str:
    """Return a text table of the IoU of each class, with bars, and the mean IoU in its last line.

    Each line holds the class, its IoU in percent, its share of the predicted pixels in percent and a bar. A dash
    stands for an undefined score.

    Args:
        rows: Rows of `class_scores`.
        mean_iou: Mean IoU of the run in [0, 1]; None if it is undefined.
        share: Whether to print the share. Without it, rows need no `predicted_pixels`.

    Returns:
        Lines joined by newlines, without a newline at the end.
    """
    total = sum(row["predicted_pixels"] for row in rows) or 1 if share else 1
    width = max([len("class"), *(len(row["class_name"]) for row in rows)])
    lines = [f"{'class':<{width}}  {'IoU':>6}" + (f"  {'share':>6}" if share else "")]
    for row in rows:
        part = f"  {100 * row['predicted_pixels'] / total:5.1f}%" if share else ""
        lines.append(f"{row['class_name']:<{width}}  {_percent(row['iou'])}{part}  {_bar(row['iou'])}".rstrip())
    lines.append(f"{'mean':<{width}}  {_percent(mean_iou)}")
    return "\n".join(lines)


def run_text(run: Run) -> str:
    """Return the scores of a committed run, its number of images, and its location as text for a terminal."""
    # NaN becomes None, which the table prints as a dash.
    scores = run.class_scores().astype(object)
    rows = scores.where(scores.notna(), None).to_dict("records")
    success = run.success
    summary = f"{success['images']} images, {success['errors']} failed; tables in {run.output}"
    return f"{class_table(rows, success['mean_iou'])}\n{summary}"


def _percent(value: float | None) -> str:
    return f"{'–':>6}" if value is None else f"{100 * value:6.1f}"


def _bar(value: float | None) -> str:
    return "█" * round(_BAR * value) if value else ""
