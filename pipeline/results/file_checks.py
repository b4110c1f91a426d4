"""Files of a committed run: checks against `_SUCCESS.json`, and their rows in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.manifest_table import CHANGES_SCHEMA, IDENTITY_COLUMNS, MANIFEST_SCHEMA
from pipeline.data.storage import join
from pipeline.errors import PipelineError
from pipeline.results.schema.encoding import MASK_ROWS_PER_GROUP, part_order
from pipeline.results.schema.schemas import CLASS_SCORES, CONFUSION, ERRORS, IMAGE_SCORES, PREDICTIONS
from pipeline.results.tables import Run

__all__ = ["FileChecks", "Rows"]

# Columns that each table must have, by the first component of its paths.
_SCHEMAS = {
    "predictions": PREDICTIONS,
    "image_scores": IMAGE_SCORES,
    "class_scores.parquet": CLASS_SCORES,
    "confusion.parquet": CONFUSION,
    "errors.parquet": ERRORS,
    # Version 0.2.0 and older wrote only these columns.
    "manifest": pa.schema([MANIFEST_SCHEMA.field(name) for name in IDENTITY_COLUMNS]),
    "changes": CHANGES_SCHEMA,
}
_SINGLE = {"class_scores.parquet", "confusion.parquet", "errors.parquet"}


class FileChecks:
    """Checker and reader of the files of a run.

    Args:
        run: Committed run.
        problem: Callback that receives one sentence per problem.
    """

    def __init__(self, run: Run, problem: Callable[[str], None]) -> None:
        self._run = run
        self._problem = problem

    def check(self) -> bool:
        """Report wrong files; return whether the rows of all present tables can be checked.

        A missing file is a problem, but the rows of the other files can be checked.
        """
        self._check_listing()
        readable = True
        for entry in self._run.success["files"]:
            path = entry["path"]
            data = self._read(path)
            if data is None:
                self._problem(f"{path} is listed in _SUCCESS.json but cannot be read")
                continue
            if hashlib.sha256(data).hexdigest() != entry["sha256"] or len(data) != entry["bytes"]:
                self._problem(f"{path} differs from the committed file (SHA-256 or length)")
            if path.endswith(".parquet") and not self._check_table(path, data, entry["rows"]):
                readable = False
        return readable

    def tables(self, prefix: str) -> Iterator[pa.Table]:
        """Yield the rows of the listed files whose paths start with a prefix, in order and in small tables."""
        for path in sorted((entry["path"] for entry in self._run.success["files"]), key=part_order):
            if path.startswith(prefix) and (data := self._read(path)) is not None:
                for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(MASK_ROWS_PER_GROUP):
                    yield pa.Table.from_batches([batch])

    def rows(self, prefix: str, schema: pa.Schema) -> Rows:
        """Return a reader of the columns of `schema` in the files of `tables`."""
        return Rows(self.tables(prefix), schema)

    def _check_listing(self) -> None:
        """Report tables that the commit does not list, and files that it does not list but a plain glob reads."""
        listed = {entry["path"] for entry in self._run.success["files"]}
        parts = {path for path in listed if path.startswith("predictions/")}
        required = _SINGLE | {path.replace("predictions/", "image_scores/") for path in parts}
        for path in sorted(required - listed):
            self._problem(f"{path} is not listed in _SUCCESS.json, which must list it")
        for folder in ("predictions/", "image_scores/", "manifest/"):
            found = self._run.storage.list(join(self._run.output, folder))
            names = {folder + info.uri.rsplit("/", 1)[-1] for info in found}
            for extra in sorted(names - listed):
                self._problem(f"{extra} is not listed in _SUCCESS.json, but a glob of {folder} reads it")

    def _check_table(self, path: str, data: bytes, rows: int) -> bool:
        """Check that a file holds the columns of its table and as many rows as committed; return whether it does."""
        expected = _SCHEMAS.get(path.split("/")[0], pa.schema([]))
        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
            wrong = [column.name for column in expected if types.get(column.name) != column.type]
            if wrong:
                self._problem(f"{path} lacks the columns {wrong}, or has them in another type")
                return False
            found = 0
            for batch in file.iter_batches(MASK_ROWS_PER_GROUP):
                found += batch.num_rows
                wrong += [each.name for each in expected if not each.nullable and batch[each.name].null_count]
        except (pa.ArrowException, OSError) as error:
            self._problem(f"{path} cannot be decoded as Parquet: {error}")
            return False
        if wrong:
            self._problem(f"{path} has nulls in the columns {sorted(set(wrong))}, which must have a value in each row")
        if found != rows:
            self._problem(f"{path} has {found} rows, _SUCCESS.json says {rows}")
        return not wrong

    def _read(self, path: str) -> bytes | None:
        try:
            return self._run.storage.read(join(self._run.output, path))
        except PipelineError:
            return None


class Rows:
    """Reader that takes chunks of any size from the rows of a sequence of tables.

    Args:
        tables: Tables that have the columns of `schema`.
        schema: Schema of the rows.
    """

    def __init__(self, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
        self._tables = tables
        self._schema = schema
        self._rest: pa.Table = schema.empty_table()

    def take(self, rows: int) -> pa.Table:
        """Return the next `rows` rows, or fewer at the end."""
        while self._rest.num_rows < rows and (table := next(self._tables, None)) is not None:
            chosen = pa.Table.from_arrays(table.select(self._schema.names).columns, schema=self._schema)
            self._rest = pa.concat_tables([self._rest, chosen])
        taken = self._rest.slice(0, rows)
        self._rest = self._rest.slice(rows)
        return taken
