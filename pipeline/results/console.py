"""The per-class table that jobs print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["class_table"]

_BAR = 30


def class_table(rows: Sequence[Mapping[Any, Any]], mean_iou: float | None, *, share: bool = True) -> str:
    """Class, IoU with a bar, share of predicted pixels; then the mean. A dash where a score is undefined.

    Args:
        rows: of `class_scores`.
        mean_iou: of the run.
        share: whether to print the share; rows need no `predicted_pixels` without.
    """
    total = sum(row["predicted_pixels"] for row in rows) or 1 if share else 1
    width = max([len("class"), *(len(row["class_name"]) for row in rows)])
    lines = [f"{'class':<{width}}  {'IoU':>6}" + (f"  {'share':>6}" if share else "")]
    for row in rows:
        part = f"  {100 * row['predicted_pixels'] / total:5.1f}%" if share else ""
        lines.append(f"{row['class_name']:<{width}}  {_percent(row['iou'])}{part}  {_bar(row['iou'])}".rstrip())
    lines.append(f"{'mean':<{width}}  {_percent(mean_iou)}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return f"{'–':>6}" if value is None else f"{100 * value:6.1f}"


def _bar(value: float | None) -> str:
    return "█" * round(_BAR * value) if value else ""
