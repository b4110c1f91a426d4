"""Tests of the queries of docs/growing.md, on runs that grew."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from pipeline.results.tables import Run
from tests.segmentation.support import CLASSES, config_of, label, picture, png, run_here, write_inputs
from tests.shared import STORAGE

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "growing.md").read_text()


def test_all_runs_as_one_are_a_run_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_inputs(str(tmp_path), 7, bad=(0,))
    STORAGE.write(str(tmp_path / "labels/00005.png"), png(label(5, 8, 8)))
    run_here(config_of(inputs, output=str(tmp_path / "out/monday"), max_error_fraction=1))
    STORAGE.write(str(tmp_path / "images/00001.png"), png(picture(91)))
    STORAGE.delete(str(tmp_path / "images/00002.png"))
    STORAGE.write(str(tmp_path / "images/00007.png"), png(picture(7)))
    # Image 5 succeeds when it is tried again, image 0 does not; image 6 is scored with another label.
    for index, size in ((5, (24, 32)), (6, (41, 30))):
        STORAGE.write(str(tmp_path / f"labels/0000{index}.png"), png(label(17, *size)))
    tuesday = {"output": str(tmp_path / "out/tuesday"), "since": str(tmp_path / "out/monday")}
    run_here(config_of(inputs, **tuesday, relabeled=True, retry_errors=True, max_error_fraction=1))
    run_here(config_of(inputs, output=str(tmp_path / "all"), max_error_fraction=1))
    whole = Run(str(tmp_path / "all"))

    monkeypatch.chdir(tmp_path)
    view, scores = re.findall(r"^```sql\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    with duckdb.connect() as connection:
        connection.execute(view)
        newest = connection.execute("SELECT image_uri, run FROM newest ORDER BY image_uri").fetchall()
        rows = connection.execute(scores).fetchall()
    assert [uri for uri, _ in newest] == whole.manifest()["image_uri"].tolist()
    runs = {Path(uri).stem: run for uri, run in newest}
    assert runs == {"00000": 2, "00001": 2, "00003": 1, "00004": 1, "00005": 2, "00006": 2, "00007": 2}
    expected = whole.class_scores()
    assert [name for name, _, _ in rows] == list(CLASSES)
    assert [iou for _, iou, _ in rows] == pytest.approx(expected["iou"].tolist())
    assert [images for _, _, images in rows] == expected["images"].tolist()
