"""Temporary SQLite database, and immutable rows of its tables, which are read in pieces of bounded size."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["FrozenTable", "temporary_database"]

_BATCH = 10_000


def temporary_database(tables: str) -> sqlite3.Connection:
    """Create a temporary SQLite database that holds only a few MiB in memory; statements commit at once.

    `SQLITE_TMPDIR` or `TMPDIR` sets the folder of its file.

    Args:
        tables: SQL statements that create the tables.
    """
    # An empty name: SQLite creates a temporary file, unlinks it at once, and uses it when its cache of a few MiB is
    # full.
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    # No process reads the file after a crash, so neither a journal nor syncing is needed.
    database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {tables}")
    return database


class FrozenTable:
    """Immutable rows of an SQLite table, addressed by position; safe to share between threads.

    Args:
        database: Connection to the database that holds the table.
        name: Name of the table, which has the columns of `schema` and `position`, the row's number from 0.
        schema: Schema of the rows.
        digested: Names of the columns that count in the digest; None for all.

    Attributes:
        num_rows: Number of rows.
    """

    def __init__(
        self, database: sqlite3.Connection, name: str, schema: pa.Schema, digested: Sequence[str] | None = None
    ) -> None:
        self._database = database
        self._name = name
        self._schema = schema
        self._digested = schema.names if digested is None else list(digested)
        self._lock = threading.Lock()
        self.num_rows: int = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]

    def slice(self, offset: int, length: int) -> pa.Table:
        """Return `length` rows from `offset` on, or fewer at the end of the table."""
        query = (
            f"SELECT {', '.join(self._schema.names)} FROM {self._name} "
            "WHERE position >= ? AND position < ? ORDER BY position"
        )
        # Threads share one connection, so queries are serialized.
        with self._lock:
            rows = self._database.execute(query, (offset, offset + length)).fetchall()
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        return pa.table([list(column) for column in columns], schema=self._schema)

    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows as tables of up to 10,000 rows."""
        for offset in range(0, self.num_rows, _BATCH):
            yield self.slice(offset, _BATCH)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows as dictionaries, one at a time."""
        for table in self.tables():
            yield from table.to_pylist()

    def digest(self) -> str:
        """Return the SHA-256 of the digested columns as hexadecimal text.

        It depends only on the rows, not on the files that hold them.
        """
        content = hashlib.sha256()
        for table in self.tables():
            for row in table.select(self._digested).to_pylist():
                content.update(json.dumps(list(row.values()), ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()
