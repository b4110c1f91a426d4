"""Selection of the plots that are written beside a report."""

from __future__ import annotations

from pipeline.results.report.class_rows import ClassFindings
from pipeline.results.report.plots import confusion_plot, distribution_plot, iou_plot, reliability_plot
from pipeline.results.report.survey import Survey
from pipeline.results.scoring.stored import StoredScores
from pipeline.results.tables import Run

__all__ = ["report_plots"]


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
