"""Tests that links between the pages lead to existing files and headings, and that the README leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCES = ("model", "pipeline", "jobs", "demo", "benchmarks", "tests")


def text_of(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[tuple[str, str]]:
    """Return path and anchor of each link of a page to another file or to a heading."""
    found: list[tuple[str, str]] = re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text_of(page))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ +(.*?) *$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{path}#{anchor}")
    assert wrong == []


def test_the_readme_leads_to_every_page() -> None:
    linked = {(ROOT / path).resolve() for path, _ in links(ROOT / "README.md")}
    assert [page.name for page in ROOT.glob("docs/*.md") if page.resolve() not in linked] == []


def test_pages_that_code_names_exist() -> None:
    files = [
        *ROOT.glob("*.yaml"),
        ROOT / "Makefile",
        *(file for room in SOURCES for file in (ROOT / room).rglob("*.py")),
    ]
    names = {name for file in files for name in re.findall(r"docs/\w+\.md", file.read_text())}
    assert names
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []
