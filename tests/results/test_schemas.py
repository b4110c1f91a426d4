"""The documented columns are those of the schemas."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.results import schemas

TABLES = (Path(__file__).resolve().parents[2] / "docs/tables.md").read_text()
SECTIONS = {
    "predictions/part-*": schemas.predictions_schema(confidence_maps=True),
    "image_scores/part-*": schemas.IMAGE_SCORES,
    "class_scores": schemas.CLASS_SCORES,
    "confusion": schemas.CONFUSION,
    "errors": schemas.ERRORS,
}


def documented(section: str) -> list[tuple[str, str]]:
    """(column, description) of a section's first table."""
    text = TABLES.split(f"## {section}.parquet")[1].split("\n## ")[0].split("|---|---|---|\n")[1].split("\n\n")[0]
    return [(row.split(" | ")[0].strip("| "), row.split(" | ")[2].strip("| ")) for row in text.strip().splitlines()]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_column_is_documented_as_the_files_say(section: str) -> None:
    expected = [(field.name, field.metadata[b"description"].decode()) for field in SECTIONS[section]]
    assert documented(section) == expected


@pytest.mark.parametrize("section", SECTIONS)
def test_only_plain_types(section: str) -> None:
    plain = (pa.types.is_string, pa.types.is_int32, pa.types.is_int64, pa.types.is_float64)
    for field in SECTIONS[section]:
        if not any(check(field.type) for check in plain):
            assert field.name in ("mask", "confidence", "classes")
