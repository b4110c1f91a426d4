"""A table that no longer changes, in a temporary database: read by position, however long it is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

__all__ = ["FrozenTable"]

_BATCH = 10_000


class FrozenTable:
    """Rows of an SQLite table that has their number, from 0, as its column `position`. Safe to share by threads.

    Args:
        database: that holds the table.
        name: of the table, which has the columns of `schema` and `position`.
        schema: of the rows.

    Attributes:
        num_rows: how many.
    """

    def __init__(self, database: sqlite3.Connection, name: str, schema: pa.Schema) -> None:
        self._database, self._name, self._schema, self._lock = database, name, schema, threading.Lock()
        self.num_rows: int = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]

    def slice(self, offset: int, length: int) -> pa.Table:
        """So many rows from `offset` on; fewer at the end."""
        query = (
            f"SELECT {', '.join(self._schema.names)} FROM {self._name} "
            "WHERE position >= ? AND position < ? ORDER BY position"
        )
        with self._lock:
            rows = self._database.execute(query, (offset, offset + length)).fetchall()
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        return pa.table([list(column) for column in columns], schema=self._schema)

    def tables(self) -> Iterator[pa.Table]:
        """All rows, some thousands at a time."""
        for offset in range(0, self.num_rows, _BATCH):
            yield self.slice(offset, _BATCH)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, one at a time."""
        for table in self.tables():
            yield from table.to_pylist()

    def digest(self) -> str:
        """SHA-256 of the content, whatever files it lies in."""
        content = hashlib.sha256()
        for row in self.rows():
            content.update(json.dumps(list(row.values()), ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()
