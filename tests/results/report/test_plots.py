"""Tests of the plots beside a report: their number, their content, and equal files on each call."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.label_spaces import LABEL_SPACES
from pipeline.results.report.class_rows import ClassRow, paper_figures
from pipeline.results.report.plots import distribution_plot, iou_plot, reliability_plot
from pipeline.results.report.report import write_report
from pipeline.results.report.survey import Distribution
from pipeline.results.scoring.measures import Bin
from pipeline.results.scoring.score import score_run
from tests.results.run_builders import write_run
from tests.segmentation.support import config_of, run_here, write_inputs

BLUE = np.array([0x4A, 0x7F, 0xC1])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def class_row(name: str, iou: float | None, paper: tuple[float | None, ...] = ()) -> ClassRow:
    return ClassRow(name, "#123456", iou, None, None, (0.1, 0.9) if iou is not None else None, paper, None, None, 1)


def blue_lines(png: bytes) -> list[int]:
    """Return the lengths of runs of the bars' color, one per bar."""
    lengths = (np.abs(pixels(png).astype(int) - BLUE).sum(axis=2) < 6).sum(axis=1)
    edges = np.flatnonzero(np.diff((lengths > 0).astype(int)))
    return [int(np.median(lengths[start + 1 : end + 1])) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def test_bars_are_as_long_as_the_scores_and_sorted() -> None:
    rows = [class_row("low", 0.2), class_row("high", 0.8), class_row("none", None)]
    high, low = blue_lines(iou_plot(rows, 0.5, (0.4, 0.6), []))
    assert high == pytest.approx(4 * low, rel=0.05)


def test_papers_with_two_rows_are_both_marked() -> None:
    classes = LABEL_SPACES["camvid_segnet"].classes
    figures = paper_figures(classes)
    assert len(figures) == 2
    rows = [class_row(name, 0.5, tuple(each.iou.get(name, 0) / 100 for each in figures)) for name in classes]
    with_paper, without = (pixels(iou_plot(rows, 0.5, None, chosen)) for chosen in (figures, []))
    orange = (np.abs(with_paper.astype(int) - [0xB3, 0x47, 0x00]).sum(axis=2) < 30).sum()
    assert orange > 200 and with_paper.shape[0] > without.shape[0]


def test_a_distribution_and_a_curve_can_be_drawn_of_one_value() -> None:
    spread = Distribution()
    spread.add(np.array([0.4]))
    assert pixels(distribution_plot(spread.bars(), spread.median(), labelled=False)).size
    assert pixels(reliability_plot([Bin(0.9, 1.0, 5, 0.95, 0.8), Bin(0.0, 0.1, 0, None, None)], 0.15)).size


def test_plots_follow_what_is_known(tmp_path: Path) -> None:
    for name, settings, expected in (
        ("labelled", {}, ["iou.png", "confusion.png", "distribution.png"]),
        ("unlabelled", {"labels": False}, ["distribution.png"]),
        ("empty", {"images": 0}, []),
    ):
        report = write_report(write_run(tmp_path / name, **settings))
        assert [Path(uri).name for uri in report.plots] == expected
        assert all(pixels(Path(uri).read_bytes()).size for uri in report.plots)


def test_scores_stand_in_the_report_once_they_are_computed(tmp_path: Path) -> None:
    config = config_of(write_inputs(str(tmp_path), 4), confidence_maps=True)
    run_here(config)
    assert "jobs/score.py" in Path(write_report(config.output).page).read_text()
    scoring = score_run(config.output)
    report = write_report(config.output)
    page = Path(report.page).read_text()
    assert "jobs/score.py" not in page and "mean boundary IoU" in page and "Accuracy by confidence" in page
    values = {row["score"]: row["value"] for row in scoring.run.to_pylist()}
    assert f"{100 * values['frequency_weighted_iou']:.1f}" in page
    assert report.plots[-1].endswith("report/reliability.png")
    before = [Path(uri).read_bytes() for uri in report.plots]
    assert [Path(uri).read_bytes() for uri in write_report(config.output).plots] == before
