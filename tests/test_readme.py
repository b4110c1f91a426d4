"""Tests that run the README's commands and code unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from tests.results.run_builders import CLASSES, write_run

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def demo_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a committed run where the README expects the demo's output."""
    folder = Path(write_run(tmp_path, size=(144, 192))).rename(tmp_path / "demo-output")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_queries_answer(demo_output: Path) -> None:
    queries = blocks("sql")
    assert len(queries) == 3
    for query in queries:
        assert duckdb.sql(query).fetchall(), query


def test_the_reader_reads(demo_output: Path) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["scores"]) == len(CLASSES)  # type: ignore[arg-type]
    assert names["mask"].ndim == 2  # type: ignore[attr-defined]


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []
