"""Catalog of the tables below a run's output: path, meaning of a row, and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.data.manifest_table import CHANGES_SCHEMA, MANIFEST_SCHEMA
from pipeline.results.comparison import schemas as comparison
from pipeline.results.schema import schemas
from pipeline.results.schema.columns import column
from pipeline.results.scoring import schemas as scoring

__all__ = ["TABLES", "Table"]


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
_URI = column("image_uri", _TEXT, "the image; rows are sorted by it", example="s3://bucket/in/a/0001.jpg")
_MANIFEST = _described(
    MANIFEST_SCHEMA,
    {
        "image_uri": _URI,
        "label_uri": column(
            "label_uri", _TEXT, "its label", null="without a label", example="s3://bucket/in-labels/a/0001.png"
        ),
        "size": column(
            "size",
            pa.int64(),
            "of the image's file",
            null="of an image that a list names and that is not there",
            unit="bytes",
            example=183044,
        ),
        "version": column("version", _TEXT, "ETag of the image's file", null="likewise", example="9b2cf535"),
    },
)
_CHANGES = _described(
    CHANGES_SCHEMA,
    {
        "image_uri": _URI,
        "change": column("change", _TEXT, "new, changed or gone since the earlier runs", example="changed"),
        "version": column("version", _TEXT, "ETag now", null="if gone", example="9b2cf535"),
        "earlier_version": column("earlier_version", _TEXT, "ETag then", null="if new", example="51ab90ce"),
    },
)
_COMPARISON = "comparison/<run_id of A>"

# In the order of docs/tables.md: the run, `scores/`, `comparison/`.
TABLES = (
    Table(
        "predictions/part-*.parquet",
        "One row per input image, in manifest order.",
        schemas.predictions_schema(confidence_maps=True),
        "`confidence` is there with `--confidence-maps` only. `error_type` is `missing`, `changed` (since the "
        "listing), `DecodeError`, `UnknownClasses` (of a label), `PredictionError`, or `ProcessDied`, where the image "
        "killed or hung the process ([reliability.md](reliability.md)).",
    ),
    Table("image_scores/part-*.parquet", "One row per segmented image and class.", schemas.IMAGE_SCORES),
    Table(
        "class_scores.parquet",
        "One row per class, over the labelled images of the run; without any labels, over all.",
        schemas.CLASS_SCORES,
    ),
    Table("confusion.parquet", "One row per pair of classes.", schemas.CONFUSION),
    Table("errors.parquet", "One row per image that failed; the same columns as in predictions.", schemas.ERRORS),
    Table("manifest/part-*.parquet", "One row per input, frozen when the run began.", _MANIFEST),
    Table(
        "changes/part-*.parquet",
        "One row per image that is new, changed or gone; only in runs with `--since`.",
        _CHANGES,
        "How such runs are read together: [growing.md](growing.md).",
    ),
    Table(
        "scores/run.parquet",
        "One row per score of the whole run; written by `jobs/score.py`, as all below `scores/`.",
        scoring.RUN,
        "What each score is: [scores.md](scores.md).",
    ),
    Table("scores/classes.parquet", "One row per class and score.", scoring.CLASSES),
    Table("scores/images/part-*.parquet", "One row per scored image.", scoring.IMAGES),
    Table("scores/image_classes/part-*.parquet", "One row per scored image and class.", scoring.IMAGE_CLASSES),
    Table(
        "scores/reliability.parquet",
        "One row per bin of confidence, of all classes together and of each; none without confidence maps.",
        scoring.RELIABILITY,
    ),
    Table(
        f"{_COMPARISON}/comparison.parquet",
        "One row per class, and one of their mean; written below B by `jobs/compare.py A B`, as all of the comparison.",
        comparison.COMPARISON,
    ),
    Table(f"{_COMPARISON}/agreement.parquet", "One row per pair of classes.", comparison.AGREEMENT),
    Table(f"{_COMPARISON}/changed_images.parquet", "One row per image that both segmented.", comparison.CHANGED_IMAGES),
    Table(f"{_COMPARISON}/only_one.parquet", "One row per image that one of both segmented.", comparison.ONLY_ONE),
)
