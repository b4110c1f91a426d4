"""Table columns with descriptions, the single source for file metadata and documentation."""

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
    """Return a pyarrow field whose metadata documents the column.

    Args:
        name: Column name.
        kind: Arrow data type.
        description: Text that says what the column holds.
        null: Condition under which a value is null, in words. None makes the field non-nullable.
        unit: Unit of the numbers; None for a column without a unit.
        example: Example value, stored as text; None for no example.

    Returns:
        Field with the metadata keys `description`, `null`, `unit` and `example`, each only if it is given.
    """
    said = {
        "description": description,
        "null": null,
        "unit": unit,
        "example": None if example is None else str(example),
    }
    # Field metadata holds text only, so keys without a value are left out.
    metadata = {key: value for key, value in said.items() if value is not None}
    return pa.field(name, kind, nullable=null is not None, metadata=metadata)
