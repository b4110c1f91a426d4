"""Generator of docs/tables.md from the table schemas.

Usage: python -m pipeline.results.table_docs > docs/tables.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.results.catalogue import TABLES, Table
from pipeline.results.ddl import athena_ddl, spark_ddl

__all__ = ["tables_document"]

_HEAD = """# Tables

What a run leaves below `--output`, column by column. This page is generated from the schemas in the code, and the same
descriptions lie in each file, as Parquet field metadata.

- Undefined is null everywhere, never 0, 1 or -1. Pixels with the ignore label count nowhere.
- Files named `part-*` go together: read them with a glob. They are sorted by `image_uri`.
- A run is complete once `_SUCCESS.json` is there; it lists every file with rows, bytes and SHA-256.
- Masks lie in row groups of 100 rows and in a column of their own: a query that does not name `mask` never fetches one.
- `union` is a reserved word in SQL: write it in double quotes.

Questions with their SQL: [questions.md](questions.md). The same tables in Polars, pandas, `pyarrow.dataset` and Hugging
Face `datasets`: [opening.md](opening.md).
"""
_DDL = """## In Athena and Spark

Of a run in `s3://bucket/out/x`. Athena reads folders, so that tables of a single file stay out of it: `class_scores`,
for one, is a `GROUP BY` of `image_scores`. `python -m pipeline.results.ddl athena s3://bucket/out/x` prints all that
Athena can read of another run, `spark` instead of `athena` all tables.
"""


def tables_document() -> str:
    """Return docs/tables.md as Markdown."""
    sections = [_HEAD, *map(_section, TABLES)]
    location = "s3://bucket/out/x"
    core = [table for table in TABLES if table.name in ("predictions", "image_scores", "manifest")]
    sections += [_DDL, *(f"```sql\n{athena_ddl(table, location)}\n```\n" for table in core if table.folder)]
    scores = next(table for table in TABLES if table.name == "class_scores")
    sections.append(f"```sql\n-- Spark\n{spark_ddl(scores, location)}\n```\n")
    return "\n".join(sections)


def _section(table: Table) -> str:
    """Return the Markdown section of one table, with a second list of columns for each nested column."""
    text = f"## {table.path}\n\n{table.rows}{' ' + table.note if table.note else ''}\n\n{_columns(table.schema)}"
    for field in table.schema:
        if pa.types.is_list(field.type):
            text += f"\nAn entry of `{field.name}`:\n\n{_columns(field.type.value_type)}"
    return text


def _columns(fields: Iterable[pa.Field]) -> str:
    return (
        "\n".join(("| column | type | | unit | null | example |", "|---|---|---|---|---|---|", *_rows(fields))) + "\n"
    )


def _rows(fields: Iterable[pa.Field]) -> Iterator[str]:
    for field in fields:
        said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        cells = (
            field.name,
            _type(field.type),
            said["description"],
            said.get("unit", ""),
            said.get("null", "never"),
            said.get("example", ""),
        )
        # A bare | would end a Markdown cell.
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(field.name for field in kind)}>"
    return str(kind)


if __name__ == "__main__":
    print(tables_document(), end="")
