"""Part file of a shard: its name, and its bytes with counts in the footer, which one PUT writes."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.results.schema.encoding import MASK_ROWS_PER_GROUP, parquet_bytes
from pipeline.results.statistics.scores import Matrix

__all__ = ["Part", "finished_shards", "part_bytes", "part_name", "part_uri", "read_part"]

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
