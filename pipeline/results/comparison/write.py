"""Writer of a comparison as tables and one self-contained web page."""

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

_LEAST = 0.01  # minimum IoU difference that half a bar spans, so that noise does not fill the bar


def write_comparison(comparison: Comparison, output: str | None = None) -> str:
    """Write the tables and the page of a comparison, replacing older ones.

    Args:
        comparison: Comparison of two runs; its tables can be written only once.
        output: URI of the folder to write to; None for a folder below B, named by the run identifier of A.

    Returns:
        URI of the page.
    """
    storage = comparison.b.storage
    folder = output or default_output(comparison.a, comparison.b)
    # The page is written last, so a new page never lacks its tables.
    for name, data in comparison.files().items():
        storage.write(join(folder, name), data)
    page = join(folder, "index.html")
    storage.write(page, comparison_html(comparison).encode())
    return page


def comparison_html(comparison: Comparison) -> str:
    """Return the page of a comparison as HTML; it loads nothing from elsewhere and runs no script.

    Args:
        comparison: Comparison of two runs.
    """
    labelled = comparison.tally.labelled
    changes = [*comparison.classes, comparison.mean]
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
            # All bars share one scale.
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
    """Return the greatest distance from 0 of a class's difference bar and its interval, as IoU."""
    score = change.score
    return max(abs(value) for value in (score.difference or 0.0, *(score.interval or ())))
