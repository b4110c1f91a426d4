"""A Parquet file of any number of rows, written as they come: memory holds its compressed bytes, not its rows."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["TableFile"]

_GROUP_ROWS = 50_000


class TableFile:
    """Takes rows, gives the bytes of one file; the same rows always give the same bytes."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._sink = schema, io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> bytes:
        """The whole file; nothing can be added any more."""
        self._write()
        self._writer.close()
        return self._sink.getvalue()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []
