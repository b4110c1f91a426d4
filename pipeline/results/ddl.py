"""SQL statements that register the tables of a run in Athena or Spark.

Usage: python -m pipeline.results.ddl athena s3://bucket/out/x
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.data.manifest_table import CHANGES_SCHEMA, MANIFEST_SCHEMA
from pipeline.data.storage import join
from pipeline.results.comparison import schemas as comparison
from pipeline.results.schema import schemas
from pipeline.results.schema.schemas import column
from pipeline.results.scoring import schemas as scoring

__all__ = ["TABLES", "Table", "athena_ddl", "spark_ddl"]


@dataclass(frozen=True)
class Table:
    """Path, schema and documentation of one table of a run.

    Attributes:
        path: Path below the run's output: one file, or a glob of files that form one table.
        rows: Sentence that says what one row is.
        schema: Arrow schema with the meaning of each column as field metadata.
        note: Further remarks for the documentation, in Markdown; empty if there are none.
    """

    path: str
    rows: str
    schema: pa.Schema
    note: str = ""

    @property
    def name(self) -> str:
        """Return the table's name in SQL: `scores/run.parquet` becomes `scores_run`."""
        # A comparison's table has the same name for every A.
        return self.path.split("/part-")[0].removesuffix(".parquet").replace("/", "_").replace("_<run_id of A>", "")

    @property
    def folder(self) -> str | None:
        """Return the folder that holds exactly this table's files, or None if the table is one file among others."""
        return self.path.split("part-")[0] if "/part-" in self.path else None


def _described(schema: pa.Schema, columns: Mapping[str, pa.Field]) -> pa.Schema:
    """Return `schema` with the descriptions of `columns`.

    The files of this schema store no descriptions: they are frozen and must not change by a byte.

    Raises:
        TypeError: If the columns differ from the schema in name, type or nullability.
    """
    described = pa.schema([columns[name] for name in schema.names])
    if not described.equals(schema):
        raise TypeError("the descriptions are those of other columns")
    return described


# Descriptions for the schemas of pipeline.data, whose files hold none.
_TEXT = pa.string()
_URI = column("image_uri", _TEXT, "URI of the image; rows are sorted by it", example="s3://bucket/in/a/0001.jpg")
_MANIFEST = _described(
    MANIFEST_SCHEMA,
    {
        "image_uri": _URI,
        "label_uri": column(
            "label_uri",
            _TEXT,
            "URI of its label",
            null="if the image has no label",
            example="s3://bucket/in-labels/a/0001.png",
        ),
        "size": column(
            "size",
            pa.int64(),
            "size of the image file",
            null="if a list names the image and the file is missing",
            unit="bytes",
            example=183044,
        ),
        "version": column(
            "version",
            _TEXT,
            "ETag of the image file; without an ETag, its size and time of last change",
            null="if size is null, or the storage states no version",
            example="9b2cf535",
        ),
        "label_version": column(
            "label_version",
            _TEXT,
            "ETag of the label file; without an ETag, its size and time of last change",
            null="if there is no label, if a list names the label and `--relabeled` was not given, or in runs of "
            "version 0.2.0 and older",
            example="0c51fe77",
        ),
    },
)
_CHANGES = _described(
    CHANGES_SCHEMA,
    {
        "image_uri": _URI,
        "change": column(
            "change",
            _TEXT,
            "new, changed, relabeled, retried or gone, compared with the earlier runs",
            example="changed",
        ),
        "version": column(
            "version",
            _TEXT,
            "version (ETag) of the image in this run; if relabeled, that of its label",
            null="if gone, or without a version",
            example="9b2cf535",
        ),
        "earlier_version": column(
            "earlier_version",
            _TEXT,
            "version (ETag) of the image in the earlier runs; if relabeled, that of its label",
            null="if new, or without a known version",
            example="51ab90ce",
        ),
    },
)
_COMPARISON = "comparison/<run_id of A>"

# In the order of docs/tables.md: the run, `scores/`, `comparison/`.
TABLES = (
    Table(
        "predictions/part-*.parquet",
        "One row per input image, in manifest order.",
        schemas.predictions_schema(confidence_maps=True),
        "The column `confidence` exists only in runs with `--confidence-maps`. `error_type` is one of:\n\n"
        "- `missing`: the image or its label does not exist.\n"
        "- `changed`: the image was replaced after the run listed its inputs.\n"
        "- `DecodeError`: the image or its label cannot be read, or does not fit into memory.\n"
        "- `UnknownClasses`: the label contains values that belong to no class.\n"
        "- `PredictionError`: the network gives scores that are not finite, or runs out of memory.\n"
        "- `ProcessDied`: the image repeatedly crashed or hung the worker process ([reliability.md](reliability.md)).",
    ),
    Table("image_scores/part-*.parquet", "One row per segmented image and class.", schemas.IMAGE_SCORES),
    Table(
        "class_scores.parquet",
        "One row per class, over the labeled images of the run. If no image has a label, over all images.",
        schemas.CLASS_SCORES,
    ),
    Table("confusion.parquet", "One row per pair of a label class and a predicted class.", schemas.CONFUSION),
    Table("errors.parquet", "One row per failed image. The same columns exist in `predictions`.", schemas.ERRORS),
    Table("manifest/part-*.parquet", "One row per input image. The list is fixed when the run starts.", _MANIFEST),
    Table(
        "changes/part-*.parquet",
        "One row per image that is new, changed, relabeled, retried or gone. Only runs with `--since` have this table.",
        _CHANGES,
        "[growing.md](growing.md) shows how to query several such runs together.",
    ),
    Table(
        "scores/run.parquet",
        "One row per score of the whole run. `jobs/score.py` writes this table and the others in `scores/`.",
        scoring.RUN,
        "[scores.md](scores.md) defines the scores.",
    ),
    Table("scores/classes.parquet", "One row per class and score.", scoring.CLASSES),
    Table("scores/images/part-*.parquet", "One row per scored image.", scoring.IMAGES),
    Table("scores/image_classes/part-*.parquet", "One row per scored image and class.", scoring.IMAGE_CLASSES),
    Table(
        "scores/reliability.parquet",
        "One row per bin of confidence, first over all classes, then for each predicted class. Without confidence "
        "maps, this table is empty.",
        scoring.RELIABILITY,
    ),
    Table(
        f"{_COMPARISON}/comparison.parquet",
        "One row per class, then one row for the mean. `jobs/compare.py A B` writes this table and the next three "
        "below the output of B.",
        comparison.COMPARISON,
    ),
    Table(
        f"{_COMPARISON}/agreement.parquet", "One row per pair of a class in A and a class in B.", comparison.AGREEMENT
    ),
    Table(
        f"{_COMPARISON}/changed_images.parquet",
        "One row per image that both runs segmented.",
        comparison.CHANGED_IMAGES,
    ),
    Table(
        f"{_COMPARISON}/only_one.parquet",
        "One row per common image that only one of the two runs segmented.",
        comparison.ONLY_ONE,
    ),
)


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
