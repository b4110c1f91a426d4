"""Tests that the documented columns equal the schemas, and that statements for other engines do too."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from pipeline.results.ddl import TABLES, Table, athena_ddl, spark_ddl
from pipeline.results.schema import schemas
from pipeline.results.table_docs import tables_document
from pipeline.results.tables import Run
from tests.results.run_builders import write_run

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/tables.md"
BY_NAME = {table.name: table for table in TABLES}
OF_RUNS = [table for table in TABLES if "<" not in table.path]
ATHENA = [table for table in OF_RUNS if table.folder]
PLAIN = {pa.string(): "TEXT", pa.int32(): "INT", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.binary(): "VARBINARY"}


def test_the_page_is_what_the_schemas_say() -> None:
    expected = tables_document()
    assert DOCUMENT.read_text() == expected, "run python -m pipeline.results.table_docs > docs/tables.md"


def test_every_file_of_a_run_is_in_the_catalogue(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path))
    kinds = {entry["path"].split("/part-")[0].removesuffix(".parquet") for entry in run.success["files"]}
    assert kinds <= set(BY_NAME) and len(kinds) == 6


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_columns_say_what_they_hold(table: Table) -> None:
    for field in table.schema:
        assert field.metadata[b"description"], field.name
        assert (b"null" in field.metadata) == field.nullable, field.name
        if pa.types.is_integer(field.type) and not field.name.endswith("_id") and "class_id" not in field.name:
            assert b"unit" in field.metadata, field.name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_only_plain_types(table: Table) -> None:
    for field in table.schema:
        if field.type not in PLAIN:
            assert field.name in ("mask", "confidence", "classes")


def kinds(statement: str, dialect: str) -> dict[str, str]:
    """Return the columns of a `CREATE TABLE` parsed in a dialect, with their types in one spelling."""
    created = sqlglot.parse_one(statement, dialect=dialect)
    assert isinstance(created, exp.Create)
    return {each.name: each.args["kind"].sql(dialect="duckdb") for each in created.find(exp.Schema).expressions}


def expected_kind(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{expected_kind(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{field.name} {expected_kind(field.type)}' for field in kind)})"
    return PLAIN[kind].replace("VARBINARY", "BLOB")


@pytest.mark.parametrize("table", ATHENA, ids=lambda table: table.name)
def test_athena_reads_the_columns(table: Table) -> None:
    statement = athena_ddl(table, "s3://bucket/out/x")
    found = kinds(statement, "athena")
    assert list(found) == table.schema.names
    assert f"LOCATION 's3://bucket/out/x/{table.folder}'" in statement
    for field in table.schema:
        assert found[field.name].replace("VARCHAR", "TEXT") == expected_kind(field.type), field.name


@pytest.mark.parametrize("table", OF_RUNS, ids=lambda table: table.name)
def test_spark_reads_the_columns(table: Table) -> None:
    found = kinds(spark_ddl(table, "s3://bucket/out/x"), "spark")
    assert list(found) == table.schema.names
    for field in table.schema:
        assert found[field.name] == expected_kind(field.type), field.name


def test_athena_is_not_told_of_single_files() -> None:
    with pytest.raises(ValueError, match="Athena reads folders"):
        athena_ddl(BY_NAME["class_scores"], "s3://bucket/out/x")


def test_confidence_maps_are_one_more_column() -> None:
    names = schemas.predictions_schema(confidence_maps=True).names
    assert names == [*schemas.predictions_schema(confidence_maps=False).names, "confidence"]
