"""Encoding of tables as Parquet and decoding of their columns; equal tables encode to equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.storage import Storage

__all__ = ["MASK_ROWS_PER_GROUP", "parquet_bytes", "part_order", "read_parquet"]

# A reader must fetch a whole row group to see one mask.
MASK_ROWS_PER_GROUP = 100
_PNG_COLUMNS = frozenset({"mask.bytes", "confidence.bytes"})
# Number of a part, in the last component of a path.
_PART_NUMBER = re.compile(r"(?<=/part-)\d+(?=[^/]*$)")


def part_order(path: str) -> str:
    """Return the sort key of a file of a run, which orders the parts of a table by their numbers.

    Names pad the number to six digits, so from 1,000,000 on their order as text is not the order of the rows.

    Args:
        path: Path or URI of the file.
    """
    return _PART_NUMBER.sub(lambda number: number[0].zfill(20), path)


def parquet_bytes(
    table: pa.Table, *, row_group_rows: int = 100_000, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Encode a table as a Parquet file, compressed with zstd.

    Columns of PNG bytes get no compression, because they do not shrink further, and no dictionary or statistics.

    Args:
        table: Table to encode.
        row_group_rows: Maximum number of rows in a row group.
        metadata: Key-value texts that are added to the file's footer; None for no addition.
    """
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    leaves = _leaf_paths(table.schema)
    plain = [leaf for leaf in leaves if leaf in _PNG_COLUMNS]
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression={leaf: "NONE" if leaf in plain else "ZSTD" for leaf in leaves},
        use_dictionary=[leaf for leaf in leaves if leaf not in plain],
        write_statistics=[leaf for leaf in leaves if leaf not in plain],
    )
    return sink.getvalue()


def read_parquet(
    storage: Storage, uri: str, columns: Sequence[str] | None = None, row_group: int | None = None
) -> pa.Table:
    """Read columns of a Parquet object without fetching the bytes of other columns.

    Args:
        storage: Storage that opens the object.
        uri: URI of the Parquet object.
        columns: Names of the columns to read; None for all.
        row_group: Index of the row group to read; None for all.

    Raises:
        StorageError: If storage fails.
    """

    def attempt(filesystem: Any, path: str) -> pa.Table:
        with filesystem.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            names = None if columns is None else list(columns)
            return parquet.read(names) if row_group is None else parquet.read_row_group(row_group, names)

    return storage.call("read", uri, attempt)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Return the dotted paths of the columns as Parquet stores them."""
    # Parquet itself chooses the path of a list's elements, so an empty file is written to read the names back.
    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    stored = pq.ParquetFile(sink).schema
    return [stored.column(index).path for index in range(len(stored))]
