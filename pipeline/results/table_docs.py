"""Generator of docs/tables.md from the table schemas.

Usage: python -m pipeline.results.table_docs > docs/tables.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.results.ddl import TABLES, Table, athena_ddl, spark_ddl

__all__ = ["tables_document"]

_HEAD = """# Tables

This page describes every table of a run, column by column. The tables are in the folder that `--output` names. The
page is generated from the schemas in the code. The Parquet files contain the same descriptions as field metadata,
except `manifest` and `changes`.

- A **mask** holds the predicted class of every pixel. A **label** holds the correct class of every pixel.
- A **valid label pixel** is a pixel of a label without the ignore label (255 by default). Scores count valid label
  pixels only.
- An undefined value is null, never 0, 1 or -1.
- Files named `part-*` form one table: read them with a glob. Their rows are sorted by `image_uri`.
- A run is complete when `_SUCCESS.json` exists. This file lists the files of the tables with rows, bytes and SHA-256.
  Tables that later jobs add (`scores/`, `comparison/`) are not in the list.
- A query that does not name `mask` reads no mask. Row groups with masks have at most 100 rows.
- `union` is a reserved word in SQL: write it in double quotes.

See also: twelve questions with their SQL in [questions.md](questions.md); the same tables in Polars, pandas,
`pyarrow.dataset` and Hugging Face `datasets` in [opening.md](opening.md).
"""
_DDL = """## In Athena and Spark

These statements register the tables of a run in `s3://bucket/out/x`. Athena reads folders, so it cannot read a table
that is a single file. Compute `class_scores`, for example, with a `GROUP BY` over `image_scores`. For another run,
`python -m pipeline.results.ddl athena s3://bucket/out/x` prints the statements of all tables that Athena can read. With
`spark` instead of `athena` it prints the statements of all tables, except those of comparisons.
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
            text += f"\nEach entry of `{field.name}` has these fields:\n\n{_columns(field.type.value_type)}"
    return text


def _columns(fields: Iterable[pa.Field]) -> str:
    return (
        "\n".join(
            ("| column | type | description | unit | null | example |", "|---|---|---|---|---|---|", *_rows(fields))
        )
        + "\n"
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
