"""Columns that say what they hold: the descriptions in the files and in the documentation are these."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["column"]


def column(
    name: str,
    kind: pa.DataType,
    description: str,
    *,
    null: str | None = None,
    unit: str | None = None,
    example: object = None,
) -> pa.Field:
    """A field of a table, with its meaning as metadata.

    Args:
        name: of the column.
        kind: its type.
        description: what it holds.
        null: when it is null; None = never, and then the column refuses nulls.
        unit: of its numbers.
        example: one value.
    """
    said = {
        "description": description,
        "null": null,
        "unit": unit,
        "example": None if example is None else str(example),
    }
    metadata = {key: value for key, value in said.items() if value is not None}
    return pa.field(name, kind, nullable=null is not None, metadata=metadata)
