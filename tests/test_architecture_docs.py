"""Test that docs/architecture.md and CONTRIBUTING.md name files that exist, and that every room is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Short names on the page are relative to the room that the sentence is about.
ROOMS = ("", "pipeline/segmentation/", "pipeline/training/")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    names = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|md))?)`", (ROOT / page).read_text())
    assert names
    assert [name for name in names if not any((ROOT / room / name).exists() for room in ROOMS)] == []


def test_every_room_is_on_the_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    floors = dict(re.findall(r"^((?:pipeline/)?[a-z_]+)/ +(.*)$", page, re.MULTILINE))
    for floor in ("model", "pipeline/training", "pipeline/segmentation", "pipeline/results", "pipeline/data"):
        folders = [path.name for path in (ROOT / floor).iterdir() if (path / "__init__.py").exists()]
        assert [name for name in folders if name not in floors[floor]] == [], floor
