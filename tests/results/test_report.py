"""The report: self-contained, escaped, and there."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from runs import CLASSES, scene, write_run

from jobs import report as job
from pipeline.results.contact_sheet import choose_panels, overlay
from pipeline.results.tables import Run


def test_page_loads_nothing_and_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path)
    assert job.main([output]) == 0
    page = Path(output) / "report/index.html"
    assert str(page) in capsys.readouterr().out
    html = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", html) and "<script" not in html
    assert "&lt;truncated&gt;" in html and "<truncated>" not in html
    assert all(name in html for name in CLASSES)
    sheet = Image.open(io.BytesIO((page.parent / "contact_sheet.png").read_bytes()))
    assert sheet.format == "PNG" and sheet.width > 1000


@pytest.mark.parametrize("options", [{"labels": False}, {"images": 0}, {"failed": tuple(range(7))}])
def test_runs_without_labels_or_masks_have_a_report(tmp_path: Path, options: dict[str, object]) -> None:
    assert job.main([write_run(tmp_path, **options)]) == 0  # type: ignore[arg-type]


def test_panels_go_from_worst_to_best(tmp_path: Path) -> None:
    captions = [panel.caption for panel in choose_panels(Run(write_run(tmp_path)), 3)]
    assert "lowest" in captions[0] and "median" in captions[1] and "highest" in captions[2]


def test_inputs_that_are_gone_do_not_stop_the_report(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
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
