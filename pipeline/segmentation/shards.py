"""Shards of the frozen manifest: which rows one has, and in which of the manifest's files they lie."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.frozen_table import FrozenTable
from pipeline.data.manifest_table import Manifest
from pipeline.data.storage import Storage, join

__all__ = ["FrozenFile", "ShardReader", "frozen_files", "manifest_difference", "part_rows"]

# Rows of one manifest file, about a megabyte: what an actor holds of a manifest of any length.
_PART_ROWS = 16_384


def part_rows(shard_images: int) -> int:
    """Rows of each file of the manifest but the last: as many whole shards as fit."""
    return max(1, _PART_ROWS // shard_images) * shard_images


@dataclass(frozen=True)
class FrozenFile:
    """One of the files that a run lays down when it begins.

    Attributes:
        path: below the output.
        offset, length: which rows of the table it has.
    """

    table: FrozenTable
    path: str
    offset: int
    length: int

    def rows(self) -> pa.Table:
        """What is in it."""
        return self.table.slice(self.offset, self.length)


def frozen_files(table: FrozenTable, folder: str, shard_images: int) -> list[FrozenFile]:
    """The files of the manifest or of the changes; of no rows there is one too, so that every run has its schema."""
    rows = part_rows(shard_images)
    parts = max(1, -(-table.num_rows // rows))
    return [FrozenFile(table, _path(folder, part), part * rows, rows) for part in range(parts)]


def _path(folder: str, part: int) -> str:
    return f"{folder}/part-{part:06d}.parquet"


class ShardReader:
    """Reads the rows of shards from the manifest in storage, as an actor does.

    Args:
        storage: where the manifest lies.
        output: of the run.
        shard_images: images per shard.
    """

    def __init__(self, storage: Storage, output: str, shard_images: int) -> None:
        self._storage, self._output, self._shard_images = storage, output, shard_images
        # Shards come in order, so that the next one nearly always lies in the file of the last.
        self._part = lru_cache(maxsize=1)(self._read)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The manifest rows of a shard."""
        part, offset = divmod(shard * self._shard_images, part_rows(self._shard_images))
        rows: list[dict[str, Any]] = self._part(part).slice(offset, self._shard_images).to_pylist()
        return rows

    def _read(self, part: int) -> pa.Table:
        return _table(self._storage, join(self._output, _path("manifest", part)))


def manifest_difference(storage: Storage, output: str, manifest: Manifest) -> str:
    """How the manifest that lies in an output differs from another one, in words; neither is ever whole in memory."""
    parts = sorted(info.uri for info in storage.list(join(output, "manifest")))
    before = (row for uri in parts for row in _table(storage, uri).to_pylist())
    counts, examples = {"new": 0, "gone": 0, "changed": 0}, dict[str, str]()
    merged = merge((("gone", row) for row in before), (("new", row) for row in manifest.rows()), key=_uri)
    for uri, group in groupby(merged, key=_uri):
        (kind, row), *other = group
        if other and other[0][1] == row:
            continue
        kind = "changed" if other else kind
        counts[kind] += 1
        examples.setdefault(kind, uri)
    example = next((examples[kind] for kind in counts if kind in examples), "?")
    return f"the inputs differ ({', '.join(f'{count} {kind}' for kind, count in counts.items())}, such as {example})"


def _uri(item: tuple[str, dict[str, Any]]) -> str:
    return str(item[1]["image_uri"])


def _table(storage: Storage, uri: str) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(uri)))
