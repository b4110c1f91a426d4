"""Tests that run the code of the README, and the first queries of docs/segment.md, unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from tests.results.run_builders import CLASSES, write_run

ROOT = Path(__file__).resolve().parent.parent


def blocks(page: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def demo_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a committed run where the pages expect the demo's output."""
    folder = Path(write_run(tmp_path, size=(144, 192))).rename(tmp_path / "demo-output")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(("page", "count"), [("README.md", 1), ("docs/segment.md", 2)])
def test_the_queries_answer(demo_output: Path, page: str, count: int) -> None:
    queries = blocks(page, "sql")
    assert len(queries) == count
    for query in queries:
        assert duckdb.sql(query).fetchall(), query


def test_the_reader_reads(demo_output: Path) -> None:
    (code,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["scores"]) == len(CLASSES)  # type: ignore[arg-type]
    assert names["mask"].ndim == 2  # type: ignore[attr-defined]
