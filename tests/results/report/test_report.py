"""Tests of the report's page: numbers, images, no external files, escaping, and unusual runs."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jobs import report as job
from pipeline.results.report.contact_sheet import choose_panels, overlay
from pipeline.results.statistics.bootstrap import iou_intervals
from pipeline.results.tables import Run
from tests.results.reads import watch_reads
from tests.results.run_builders import CLASSES, scene, write_run


class Page(HTMLParser):
    """Parser of the page: tables as lists of rows, headings, and captions of figures, all as text."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[tuple[int, str]] = []
        self.captions: list[str] = []
        self._into: list[str] | None = None
        self.html = Path(output, "report/index.html").read_text()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th", "figcaption") or re.fullmatch("h[1-6]", tag):
            self._into = []

    def handle_endtag(self, tag: str) -> None:
        if self._into is None:
            return
        text = " ".join("".join(self._into).split())
        if tag in ("td", "th"):
            self.tables[-1][-1].append(text)
        elif tag == "figcaption":
            self.captions.append(text)
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), text))
        else:
            return
        self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)

    def under(self, title: str) -> list[str]:
        """Return the numbers of the images under a heading."""
        html = self.html
        start = html.index(f"<h3>{title}</h3>")
        ends = [at for at in (html.find("<h3>", start + 1), html.find("</section>", start)) if at > 0]
        return re.findall(r"/in/(\d+)\.png</span>", html[start : min(ends)])


def written(tmp_path: Path, **options: Any) -> str:
    output = write_run(tmp_path, **options)
    assert job.main([output]) == 0
    return output


def test_page_loads_nothing_and_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = written(tmp_path)
    page = Path(output) / "report/index.html"
    assert str(page) in capsys.readouterr().out
    html = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", html) and "<script" not in html and "url(" not in html
    assert "&lt;truncated&gt;" in html and "<truncated>" not in html
    assert all(name in html for name in CLASSES)
    sheet = Image.open(io.BytesIO((page.parent / "contact_sheet.png").read_bytes()))
    assert sheet.format == "PNG" and sheet.width > 1000


def test_names_of_files_are_shown_and_never_run(tmp_path: Path) -> None:
    output = written(tmp_path / '"><b onload=alert(1)>')
    html = Path(output, "report/index.html").read_text()
    assert "<b onload" not in html and "&#34;&gt;&lt;b onload=alert(1)&gt;" in html


def test_numbers_of_classes_are_those_of_the_tables(tmp_path: Path) -> None:
    output = written(tmp_path, images=20)
    run = Run(output)
    intervals = iou_intervals(Run(output))
    scores, shares, heat, *_ = Page(output).tables
    for row, stored, interval in zip(scores[1:], run.class_scores().itertuples(), intervals.classes, strict=False):
        low, high = interval or (0, 0)
        assert row[0] == stored.class_name
        assert row[2] == f"{100 * stored.iou:.1f} {100 * low:.1f}–{100 * high:.1f}"
    low, high = intervals.mean or (0, 0)
    assert scores[-1][2] == f"{100 * run.success['mean_iou']:.1f} {100 * low:.1f}–{100 * high:.1f}"
    pixels = run.class_scores()["target_pixels"]
    assert [row[2] for row in shares[1:]] == [f"{100 * value:.1f}" for value in pixels / pixels.sum()]
    assert heat[0] == ["predicted →", *CLASSES, "pixels"]
    assert [row[-1] for row in heat[1:]] == [f"{value:,}" for value in pixels]
    for row, counts in zip(heat[1:], run.confusion().to_numpy(), strict=True):
        assert row[1:-1] == [f"{100 * n / counts.sum():.0f}" if n >= 0.005 * counts.sum() else "" for n in counts]


def test_the_distribution_counts_every_labelled_image(tmp_path: Path) -> None:
    output = written(tmp_path, images=20)
    (table,) = [table for table in Page(output).tables if table[0] == ["mean IoU, %", "images"]]
    expected, _ = np.histogram(Run(output).predictions()["mean_iou"].dropna(), 20, (0, 1))
    assert [int(count) for _, count in table[1:]] == expected.tolist() and expected.sum() == 18


def test_images_are_shown_in_the_order_of_their_scores(tmp_path: Path) -> None:
    output = written(tmp_path, images=20)
    rows = Run(output).predictions()
    page = Page(output)
    by_score = rows.dropna(subset=["mean_iou"]).sort_values("mean_iou", kind="stable")
    names = [Path(uri).stem for uri in by_score["image_uri"]]
    assert page.under("Worst") == names[:4] and set(page.under("Best")) == set(names[-4:])
    best = by_score.set_index(np.array(names))["mean_iou"][page.under("Best")]
    assert best.is_monotonic_decreasing
    uncertain = rows.sort_values("mean_entropy", ascending=False, kind="stable")
    assert page.under("Most uncertain") == [Path(uri).stem for uri in uncertain["image_uri"]][:4]
    assert len(set(page.under("Random"))) == 4
    assert page.captions[0].startswith(f"mean IoU {100 * by_score['mean_iou'].iloc[0]:.1f} confidence 90.0 entropy ")


def test_few_images_are_not_both_worst_and_best(tmp_path: Path) -> None:
    page = Page(written(tmp_path, images=7))
    assert len(page.under("Worst")) == 2 and len(page.under("Best")) == 3
    assert not set(page.under("Worst")) & set(page.under("Best"))


def test_masks_are_fetched_for_the_chosen_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = write_run(tmp_path, 60, failed=(3,))
    reads = watch_reads(monkeypatch)
    assert job.main([output]) == 0
    page = Page(output)
    titles = ("Worst", "Best", "Most uncertain", "Random")
    shown = {int(name) for title in titles for name in page.under(title)}
    gallery = reads.masks[: len(shown)]
    sheet = reads.masks[len(shown) :]
    # Count each image once, even if it is shown twice, then those of the contact sheet.
    assert sorted(gallery) == sorted(shown) and len(sheet) == 6
    assert not any({"mask", "all"} & set(columns) for columns in reads.files if len(columns) > 2)


@pytest.mark.parametrize(
    "options", [{"labels": False}, {"images": 0}, {"images": 1, "failed": ()}, {"failed": tuple(range(7))}]
)
def test_runs_without_labels_or_masks_have_a_report(tmp_path: Path, options: dict[str, Any]) -> None:
    html = Path(written(tmp_path, **options), "report/index.html").read_text()
    text = re.sub(r"data:[^\"]*|<p class=\"muted\">None.</p>", "", html)
    assert "None" not in text and "nan" not in text.lower()


def test_without_labels_nothing_is_said_of_scores(tmp_path: Path) -> None:
    page = Page(written(tmp_path, images=12, labels=False))
    assert [text for level, text in page.headings if level == 3] == ["Share of pixels", "Most uncertain", "Random"]
    assert not any("IoU" in cell for table in page.tables for row in table for cell in row)
    assert "Label of" not in page.html and "Errors of" not in page.html


@pytest.mark.parametrize("options", [{}, {"labels": False}, {"images": 0}])
def test_headings_leave_out_no_level(tmp_path: Path, options: dict[str, Any]) -> None:
    levels = [level for level, _ in Page(written(tmp_path, **options)).headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_panels_go_from_worst_to_best(tmp_path: Path) -> None:
    captions = [panel.caption for panel in choose_panels(Run(write_run(tmp_path)), 3)]
    assert "lowest" in captions[0] and "median" in captions[1] and "highest" in captions[2]


def test_inputs_that_are_gone_do_not_stop_the_report(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    for folder in ("in", "labels"):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
    assert job.main([output]) == 0
    html = Path(output, "report/index.html").read_text()
    assert html.count("not available") == 3 * html.count("Prediction of") > 0


def test_an_image_that_was_replaced_by_another_does_not_stop_the_report(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    for folder in ("in", "labels"):
        for path in (tmp_path / folder).iterdir():
            Image.new("L", (9, 7)).save(path)
    assert job.main([output]) == 0


def test_overlay_blends_class_colours() -> None:
    ids = np.array([[0, 255]], np.uint8)
    image = np.full((1, 2, 3), 100, np.uint8)
    blended = overlay(image, ids, np.array([[200, 0, 0]], np.uint8), 255)
    assert blended[0, 0].tolist() == [160, 40, 40] and blended[0, 1, 0] < 100


def test_duckdb_pandas_and_the_reader_agree_with_the_masks(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    run = Run(output)
    masks = dict(run.masks())
    for uri, mask in masks.items():
        assert np.array_equal(mask, scene(int(Path(uri).stem))[2]) and np.array_equal(mask, run.mask(uri))
    table = f"'{output}/image_scores/*.parquet'"
    query = f'select class_name, sum(intersection) / sum("union") from {table} group by 1'
    by_sql = dict(duckdb.sql(query).fetchall())
    stored = pd.read_parquet(f"{output}/class_scores.parquet").set_index("class_name")["iou"]
    for class_id, name in enumerate(CLASSES):
        inter = union = 0
        for uri, mask in masks.items():
            label = scene(int(Path(uri).stem))[1]
            valid = label != 255
            inter += int(((label == class_id) & (mask == class_id) & valid).sum())
            union += int((((label == class_id) | (mask == class_id)) & valid).sum())
        assert inter / union == stored[name] == pytest.approx(by_sql[name])
