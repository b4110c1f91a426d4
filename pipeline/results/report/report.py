"""Report of a run as one self-contained web page.

`survey` chooses its images; `gallery` and `heat_map` draw them and the confusion matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.data.storage import Storage, join
from pipeline.results.report.class_rows import ClassFindings, class_findings
from pipeline.results.report.contact_sheet import contact_sheet
from pipeline.results.report.gallery import gallery
from pipeline.results.report.heat_map import SCALE, shade
from pipeline.results.report.page import WRONG, hex_colour, page_environment
from pipeline.results.report.plots import confusion_plot, distribution_plot, iou_plot, reliability_plot
from pipeline.results.report.survey import Reason, Survey, all_facts, main_facts, survey
from pipeline.results.scoring.score import StoredScores, stored_scores
from pipeline.results.tables import Run

__all__ = ["Report", "render_html", "report_plots", "write_report"]


def report_plots(run: Run, found: Survey, classes: ClassFindings, scores: StoredScores | None) -> dict[str, bytes]:
    """Return the plots of a report; a plot whose values are undefined is left out.

    Args:
        run: Committed run.
        found: Survey of the run's images.
        classes: Findings about the run's classes.
        scores: Scores from `jobs/score.py`; None if the run was not scored.

    Returns:
        PNG files by file name.
    """
    plots = {}
    labelled = run.success["mean_iou"] is not None
    if labelled:
        plots["iou.png"] = iou_plot(classes.classes, run.success["mean_iou"], classes.mean_interval, classes.figures)
    if classes.heat is not None:
        plots["confusion.png"] = confusion_plot(classes.heat)
    spread = found.spread
    if spread.total:
        plots["distribution.png"] = distribution_plot(spread.bars(), spread.median(), labelled=labelled)
    if scores is not None and any(each.pixels for each in scores.curve):
        plots["reliability.png"] = reliability_plot(scores.curve, scores.calibration_error)
    return plots


_SHOWN = 4  # maximum number of images in each group


@dataclass(frozen=True)
class Report:
    """URIs of the files of a written report.

    Attributes:
        page: URI of ``report/index.html``.
        sheet: URI of ``report/contact_sheet.png``; None if no image was predicted.
        plots: URIs of the plots.
    """

    page: str
    sheet: str | None
    plots: tuple[str, ...]


def write_report(output: str, storage: Storage | None = None, images: int = 6) -> Report:
    """Write ``index.html``, ``contact_sheet.png`` and the plots below ``<output>/report/``, replacing older ones.

    Files of the run are read one at a time, and masks only of the images that are shown.

    Args:
        output: URI of a committed run.
        storage: Storage to read from and write to; None for the default retries.
        images: Maximum number of rows on the contact sheet.

    Raises:
        IncompleteRun: If no run is committed at `output`.
    """
    run = Run(output, storage)
    found = survey(run, _SHOWN)
    classes = class_findings(run)
    scores = stored_scores(run)
    page = _write(run, "index.html", render_html(run, found, classes, scores).encode())
    plots = tuple(_write(run, name, data) for name, data in report_plots(run, found, classes, scores).items())
    sheet = contact_sheet(run, images, found)
    return Report(page, None if sheet is None else _write(run, "contact_sheet.png", sheet), plots)


def _write(run: Run, name: str, data: bytes) -> str:
    uri = join(run.output, "report", name)
    run.storage.write(uri, data)
    return uri


def render_html(run: Run, found: Survey, classes: ClassFindings, scores: StoredScores | None) -> str:
    """Return the report as HTML; the page loads nothing from elsewhere and runs no script.

    Args:
        run: Committed run.
        found: Survey of the run's images.
        classes: Findings about the run's classes.
        scores: Scores from `jobs/score.py`; None if the run was not scored.
    """
    success = run.success
    info = run.info()
    return (
        page_environment()
        .get_template("report/report.html")
        .render(
            run_id=success["run_id"],
            output=run.output,
            success=success,
            labelled=success["mean_iou"] is not None,
            found=found,
            main_facts=main_facts(info, found),
            facts=all_facts(info),
            legend=_legend(run),
            groups=gallery(run, found),
            reasons=_reasons(run, found),
            wrong=hex_colour(WRONG),
            # Legend of the heat map.
            scale=[(share, *shade(share)) for share in SCALE],
            scores=scores,
            **vars(classes),
            **_distribution_context(found),
        )
    )


def _distribution_context(found: Survey) -> dict[str, Any]:
    bars = found.spread.bars()
    return {"bars": bars, "most": max(bar.count for bar in bars), "median": found.spread.median()}


def _legend(run: Run) -> list[tuple[str, str]]:
    return [(name, hex_colour(colour)) for name, colour in zip(run.classes, run.success["palette"], strict=True)]


def _reasons(run: Run, found: Survey) -> list[tuple[Reason, list[tuple[str, str]]]]:
    """Return the failure reasons, most frequent first, each with URIs and messages of its first images."""
    reasons = sorted(found.reasons.values(), key=lambda reason: (-reason.count, reason.stage, reason.kind))
    return [(reason, [(_uri(run, position), message) for position, message in reason.examples]) for reason in reasons]


def _uri(run: Run, position: int) -> str:
    return str(run.row("predictions/", position, ["image_uri"])["image_uri"])
