"""Parquet file that is built up row by row: memory holds its compressed bytes, not its rows."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["TableFile"]

# Rows of one row group, which are held in memory until they are compressed.
_GROUP_ROWS = 50_000


class TableFile:
    """Writer of one Parquet file in memory; the same rows always give the same bytes.

    Args:
        schema: Arrow schema of the rows.

    Attributes:
        rows: Number of rows added so far.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, given as values by column name."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> bytes:
        """Close the file and return its bytes; no row can be added afterwards."""
        self._write()
        self._writer.close()
        return self._sink.getvalue()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []
