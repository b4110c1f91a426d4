"""A comparison as tables and one self-contained web page."""

from __future__ import annotations

from typing import Any

from pipeline.data.storage import join
from pipeline.results.comparison.changed_images import change_groups
from pipeline.results.comparison.class_changes import ClassChange
from pipeline.results.comparison.compare import Comparison, default_output
from pipeline.results.comparison.verdict import FEW, agreement_sentence, mean_sentence, number_notes
from pipeline.results.report.heat_map import SCALE, heat_map, shade
from pipeline.results.report.page import hex_colour, page_environment
from pipeline.results.report.pictures import WRONG

__all__ = ["comparison_html", "write_comparison"]

_LEAST = 0.01  # that a difference bar's half spans: noise must not fill it


def write_comparison(comparison: Comparison, output: str | None = None) -> str:
    """Writes the tables and the page, replacing older ones.

    Args:
        comparison: of two runs.
        output: URI of a folder; None: below B, by the name of A.

    Returns:
        URI of the page.
    """
    storage, folder = comparison.b.storage, output or default_output(comparison)
    for name, data in comparison.files().items():
        storage.write(join(folder, name), data)
    page = join(folder, "index.html")
    storage.write(page, comparison_html(comparison).encode())
    return page


def comparison_html(comparison: Comparison) -> str:
    """The page. Nothing is loaded from elsewhere, and no script runs."""
    labelled, changes = comparison.tally.labelled, [*comparison.classes, comparison.mean]
    run_a, run_b = comparison.run_ids
    palette = comparison.b.success["palette"]
    return (
        page_environment()
        .get_template("comparison/comparison.html")
        .render(
            run_a=run_a,
            run_b=run_b,
            output_a=comparison.a.output,
            output_b=comparison.b.output,
            comparison=comparison,
            labelled=labelled,
            few=0 < labelled < FEW,
            notes=list(number_notes(comparison)),
            mean_sentence=mean_sentence(comparison),
            agreement_sentence=agreement_sentence(comparison),
            changes=changes,
            span=max([_LEAST, *(_reach(change) for change in changes)]),
            legend=[(name, hex_colour(colour)) for name, colour in zip(comparison.b.classes, palette, strict=True)],
            groups=change_groups(comparison),
            wrong=hex_colour(WRONG),
            **_agreement_context(comparison),
        )
    )


def _agreement_context(comparison: Comparison) -> dict[str, Any]:
    if comparison.agreement is None:
        return {"heat": None}
    heat = heat_map(comparison.tally.agreement.astype(float), comparison.b.classes)
    return {"heat": heat, "scale": [(share, *shade(share)) for share in SCALE]}


def _reach(change: ClassChange) -> float:
    """How far from 0 the bar and the interval of a class go."""
    score = change.score
    return max(abs(value) for value in (score.difference or 0.0, *(score.interval or ())))
