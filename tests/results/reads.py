"""Recorder of the reads of a run: columns, rows, and the number of tables in memory at once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from pipeline.data.storage import Storage
from pipeline.results import tables
from pipeline.results.tables import Run


@dataclass
class Reads:
    """Record of reads, filled while a test runs.

    Attributes:
        files: Columns of each whole file that was read.
        held: Number of tables of other files that were in memory at each of these reads.
        rows: Folder, position and columns of each single row that was read.
    """

    files: list[Sequence[str]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    rows: list[tuple[str, int, Sequence[str]]] = field(default_factory=list)

    @property
    def masks(self) -> list[int]:
        """Positions of the masks that were read."""
        return [position for folder, position, columns in self.rows if "mask" in columns]


def watch_reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Record everything that `Run.tables` and `Run.row` read from now on."""
    reads = Reads()
    alive = weakref.WeakValueDictionary[int, pa.Table]()
    read_parquet = tables.read_parquet
    row = Run.row

    def read(storage: Storage, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
        reads.held.append(len(alive))
        reads.files.append(tuple(columns or ("all",)))
        table = read_parquet(storage, uri, columns)
        alive[len(reads.files)] = table
        return table

    def read_row(run: Run, folder: str, position: int, columns: Sequence[str]) -> dict[str, object]:
        reads.rows.append((folder, position, tuple(columns)))
        return row(run, folder, position, columns)

    monkeypatch.setattr(tables, "read_parquet", read)
    monkeypatch.setattr(Run, "row", read_row)
    return reads
