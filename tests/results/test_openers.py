"""Tests that run the code of docs/opening.md unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.results.tables import Run
from tests.results.run_builders import PALETTE, write_run

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/opening.md").read_text()
BLOCKS = dict(re.findall(r"^## (.*?)\n.*?^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return Run(write_run(tmp_path, 7, failed=(2, 5), name="run"))


def names(title: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(BLOCKS[title], found)
    return found


def test_every_block_is_tested() -> None:
    tested = {"DuckDB", "Polars", "pandas", "pyarrow.dataset", "Masks as arrays", "Hugging Face datasets"}
    assert set(BLOCKS) == {*tested, "In Python, without SQL"}


def test_duckdb(run: Run) -> None:
    scores = names("DuckDB")["scores"]
    expected = run.class_scores().sort_values("iou")
    assert scores["class_name"].tolist() == expected["class_name"].tolist()


def test_polars(run: Run) -> None:
    found = names("Polars")
    expected = run.predictions()
    assert found["images"].height == 7 and found["images"]["status"].to_list() == expected["status"].tolist()
    assert found["worst"]["mean_iou"].to_list() == expected["mean_iou"].dropna().sort_values().tolist()[:3]


def test_pandas(run: Run) -> None:
    iou = names("pandas")["iou"]
    expected = run.class_scores().set_index("class_name")["iou"]
    assert iou.to_dict() == pytest.approx(expected.to_dict())


def test_pyarrow_dataset(run: Run) -> None:
    failed = names("pyarrow.dataset")["failed"].to_pylist()
    assert [row["image_uri"] for row in failed] == run.errors()["image_uri"].tolist()


def test_masks_as_arrays(run: Run) -> None:
    found = names("Masks as arrays")
    assert np.array_equal(found["ids"], run.mask(found["row"]["image_uri"]))


def test_hugging_face_shows_masks_in_colours(run: Run) -> None:
    found = names("Hugging Face datasets")
    ids = run.mask(found["predictions"][0]["image_uri"])
    assert found["first"].mode == "P" and np.array_equal(np.asarray(found["first"]), ids)
    assert np.array_equal(np.asarray(found["first"].convert("RGB")), np.asarray(PALETTE, np.uint8)[ids])
    assert found["predictions"][2]["mask"] is None and len(found["predictions"]) == 7


def test_the_reader(run: Run) -> None:
    found = names("In Python, without SQL")
    assert len(found["frame"]) == 5 and found["mask"].shape == (48, 64)
