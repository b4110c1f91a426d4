"""Shards of the frozen manifest, and the parts of the tables that they become."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.frozen_table import FrozenTable
from pipeline.data.manifest_table import IDENTITY_COLUMNS, Manifest
from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.results.schema.encoding import MASK_ROWS_PER_GROUP, parquet_bytes, part_order
from pipeline.results.statistics.scores import Matrix

__all__ = [
    "FrozenFile",
    "Part",
    "ShardReader",
    "finished_shards",
    "frozen_files",
    "manifest_difference",
    "part_bytes",
    "part_name",
    "part_rows",
    "part_uri",
    "read_part",
]

# Rows of one manifest file, about a megabyte; an actor holds no more of a manifest of any length.
_PART_ROWS = 16_384


def part_rows(shard_images: int) -> int:
    """Return the number of rows of each manifest file but the last: as many whole shards as fit, at least one."""
    return max(1, _PART_ROWS // shard_images) * shard_images


@dataclass(frozen=True)
class FrozenFile:
    """File that a run writes when it begins, and never changes.

    Attributes:
        table: Table that the file is a part of.
        path: Path below the output.
        offset: Position of the file's first row in the table.
        length: Largest number of rows of the file; the last file may have fewer.
    """

    table: FrozenTable
    path: str
    offset: int
    length: int

    def rows(self) -> pa.Table:
        """Return the rows of the file."""
        return self.table.slice(self.offset, self.length)


def frozen_files(table: FrozenTable, folder: str, shard_images: int) -> list[FrozenFile]:
    """Return the files of the manifest or of the changes.

    A table without rows has one file too, so that the schema exists in every run.

    Args:
        table: Table to divide.
        folder: Folder of the files, below the output.
        shard_images: Images per shard; no shard crosses the border of two files.
    """
    rows = part_rows(shard_images)
    parts = max(1, -(-table.num_rows // rows))
    return [FrozenFile(table, _path(folder, part), part * rows, rows) for part in range(parts)]


def _path(folder: str, part: int) -> str:
    return f"{folder}/part-{part:06d}.parquet"


class ShardReader:
    """Reader of the manifest rows of shards from storage, for actors.

    Args:
        storage: Storage of the output.
        output: URI of the run's output.
        shard_images: Images per shard.
    """

    def __init__(self, storage: Storage, output: str, shard_images: int) -> None:
        self._storage = storage
        self._output = output
        self._shard_images = shard_images
        # Shards come in order, so the next one is nearly always in the file that was read last.
        self._part = lru_cache(maxsize=1)(self._read)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """Return the manifest rows of a shard."""
        part, offset = divmod(shard * self._shard_images, part_rows(self._shard_images))
        rows: list[dict[str, Any]] = self._part(part).slice(offset, self._shard_images).to_pylist()
        return rows

    def _read(self, part: int) -> pa.Table:
        return _table(self._storage, join(self._output, _path("manifest", part)))


def manifest_difference(storage: Storage, output: str, manifest: Manifest) -> str:
    """Describe in words how the manifest in an output differs from another one; neither is ever whole in memory.

    Args:
        storage: Storage of the output.
        output: URI of the output.
        manifest: Manifest of the new submission.

    Returns:
        Clause for an error message, with the numbers of new, gone and changed images and one example.
    """
    parts = sorted((info.uri for info in storage.list(join(output, "manifest"))), key=part_order)
    tables = (_table(storage, uri) for uri in parts)
    before = (row for table in tables for row in table.select(IDENTITY_COLUMNS).to_pylist())
    now = (row for table in manifest.tables() for row in table.select(IDENTITY_COLUMNS).to_pylist())
    counts = {"new": 0, "gone": 0, "changed": 0}
    examples = dict[str, str]()
    # Both manifests are sorted by URI, so a merge brings the two rows of an image together.
    merged = merge((("gone", row) for row in before), (("new", row) for row in now), key=_uri)
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


FOOTER_KEY = "dilated_context"
_NAME = re.compile(r"part-(\d{6,})-([0-9a-f]{12})\.parquet")


@dataclass(frozen=True)
class Part:
    """Part as read back from storage.

    Attributes:
        table: Rows of `predictions` without masks and confidence maps.
        confusion: (C, C) pixels of the labeled images by target and predicted class.
    """

    table: pa.Table
    confusion: Matrix


def part_name(shard: int, identity: str) -> str:
    """Return the file name of a part, which depends on the shard and the run's identity alone.

    A retry, or another driver, therefore writes to the same name.
    """
    return f"part-{shard:06d}-{identity[:12]}.parquet"


def part_uri(output: str, shard: int, identity: str) -> str:
    """Return the URI of the part of a shard."""
    return join(output, "predictions", part_name(shard, identity))


def part_bytes(table: pa.Table, confusion: Matrix, shard: int, identity: str) -> bytes:
    """Return a `predictions` table as a complete Parquet file, with the confusion matrix in its footer.

    The matrix cannot be computed from the columns, and the driver that commits may not be the one that saw the labels.

    Args:
        table: Rows of the shard.
        confusion: (C, C) pixels of the labeled images by target and predicted class.
        shard: Number of the shard, from 0.
        identity: Identity of the run.
    """
    footer = {"identity": identity, "shard": shard, "confusion": confusion.tolist()}
    return parquet_bytes(table, row_group_rows=MASK_ROWS_PER_GROUP, metadata={FOOTER_KEY: json.dumps(footer)})


def read_part(data: bytes, shard: int, identity: str) -> Part:
    """Decode the bytes of a part, without masks and confidence maps.

    Raises:
        RunConflict: If the file belongs to another run or shard.
    """
    parquet = pq.ParquetFile(io.BytesIO(data))
    footer: dict[str, Any] = json.loads((parquet.schema_arrow.metadata or {}).get(FOOTER_KEY.encode(), b"{}"))
    if footer.get("identity") != identity or footer.get("shard") != shard:
        raise RunConflict(
            f"part {shard} was written by run {footer.get('identity')}, shard {footer.get('shard')}: "
            "something else writes to this output; choose another"
        )
    columns = [name for name in parquet.schema_arrow.names if name not in ("mask", "confidence")]
    return Part(parquet.read(columns), np.array(footer["confusion"], np.int64))


def finished_shards(storage: Storage, output: str, identity: str) -> set[int]:
    """Return the numbers of the shards whose part exists.

    Raises:
        RunConflict: If any other file lies among the parts, such as a part of another run. A plain glob of the folder
            would count its rows too.
    """
    finished = set()
    for info in storage.list(join(output, "predictions")):
        match = _NAME.fullmatch(info.uri.rsplit("/", 1)[-1])
        if match is None or match[2] != identity[:12]:
            raise RunConflict(f"{info.uri} is not a part of run {identity[:16]}: remove it or choose another output")
        finished.add(int(match[1]))
    return finished
