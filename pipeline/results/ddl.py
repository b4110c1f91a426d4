"""SQL statements that register the tables of a run in Athena or Spark.

Usage: python -m pipeline.results.ddl athena s3://bucket/out/x
"""

from __future__ import annotations

import argparse

import pyarrow as pa

from pipeline.data.storage import join
from pipeline.results.catalogue import TABLES, Table

__all__ = ["athena_ddl", "spark_ddl"]

# Names of the scalar types, the same in both dialects.
_NAMES = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.binary(): "binary",
}


def athena_ddl(table: Table, output: str) -> str:
    """Return the Athena `CREATE EXTERNAL TABLE` statement of a table.

    Args:
        table: Table whose files have a folder of their own.
        output: URI of the run.

    Raises:
        ValueError: If the table is one file among others, which Athena cannot read.
    """
    if table.folder is None:
        raise ValueError(f"{table.path} has no folder of its own, and Athena reads folders only")
    columns = ",\n".join(f"  `{field.name}` {_type(field.type, ':')}" for field in table.schema)
    return (
        f"CREATE EXTERNAL TABLE {table.name} (\n{columns}\n)\nSTORED AS PARQUET\n"
        f"LOCATION '{join(output, table.folder)}';"
    )


def spark_ddl(table: Table, output: str) -> str:
    """Return the Spark `CREATE TABLE` statement of a table, which may be a folder or one file.

    Args:
        table: Table of the catalog.
        output: URI of the run.
    """
    columns = ",\n".join(f"  `{field.name}` {_type(field.type, ': ')}" for field in table.schema)
    place = join(output, table.folder or table.path)
    return f"CREATE TABLE {table.name} (\n{columns}\n)\nUSING parquet\nOPTIONS (path '{place}');"


def _type(kind: pa.DataType, between: str) -> str:
    """Return the SQL name of an Arrow type; `between` separates the name and the type of each field of a struct."""
    if pa.types.is_list(kind):
        return f"array<{_type(kind.value_type, between)}>"
    if pa.types.is_struct(kind):
        fields = (f"{field.name}{between}{_type(field.type, between)}" for field in kind)
        return f"struct<{', '.join(fields)}>"
    return _NAMES[kind]


def _main() -> None:
    parser = argparse.ArgumentParser(description="Print SQL statements that register the tables of a run.")
    parser.add_argument("dialect", choices=("athena", "spark"))
    parser.add_argument("output", help="URI of the run")
    options = parser.parse_args()
    # The paths of comparisons hold the placeholder <run_id of A>, so the output does not determine their location.
    of_runs = [table for table in TABLES if "<" not in table.path]
    if options.dialect == "athena":
        print("\n\n".join(athena_ddl(table, options.output) for table in of_runs if table.folder))
    else:
        print("\n\n".join(spark_ddl(table, options.output) for table in of_runs))


if __name__ == "__main__":
    _main()
