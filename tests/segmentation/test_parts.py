"""Tests of parts: names that depend on the identity alone, counts in the footer, refusal of foreign parts."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.data.manifest import build_manifest
from pipeline.data.storage import join
from pipeline.errors import RunConflict
from pipeline.segmentation.runs.shards import finished_shards, part_bytes, part_name, part_uri, read_part
from pipeline.segmentation.segmenter import Segmenter, ShardResult
from tests.segmentation.support import config_of, narrow_network, write_inputs
from tests.shared import STORAGE

IDENTITY = "ab" * 32


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ShardResult:
    inputs = write_inputs(str(tmp_path_factory.mktemp("parts")), 3)
    config = config_of(inputs)
    manifest = list(build_manifest(STORAGE, config.images, config.labels).rows())
    return Segmenter(narrow_network(), config, IDENTITY[:16], STORAGE).segment(manifest)


def test_what_is_written_comes_back(result: ShardResult) -> None:
    part = read_part(part_bytes(result.table, result.confusion, 4, IDENTITY), 4, IDENTITY)
    assert np.array_equal(part.confusion, result.confusion) and result.confusion.sum() > 0
    assert part.table.equals(result.table.drop_columns(["mask"]).replace_schema_metadata(part.table.schema.metadata))


def test_many_rows_are_cut_into_row_groups_of_a_hundred(result: ShardResult) -> None:
    import pyarrow as pa

    many = pa.concat_tables([result.table] * 70)
    data = part_bytes(many, result.confusion, 0, IDENTITY)
    metadata = pq.read_metadata(pa.BufferReader(data))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [100, 100, 10]


@pytest.mark.parametrize(("shard", "identity"), [(5, IDENTITY), (4, "cd" * 32)])
def test_a_part_of_something_else_is_refused(result: ShardResult, shard: int, identity: str) -> None:
    with pytest.raises(RunConflict, match="shard 4"):
        read_part(part_bytes(result.table, result.confusion, 4, IDENTITY), shard, identity)


def test_finished_shards_are_those_with_a_part(tmp_path: object) -> None:
    storage = STORAGE
    output = str(tmp_path)
    assert finished_shards(storage, output, IDENTITY) == set()
    for shard in (0, 7, 1_234_567):
        storage.write(part_uri(output, shard, IDENTITY), b"part")
    assert finished_shards(storage, output, IDENTITY) == {0, 7, 1_234_567}


@pytest.mark.parametrize("name", [part_name(1, "cd" * 32), "part-1.parquet", "notes.txt"])
def test_a_stranger_among_the_parts_is_refused(tmp_path: object, name: str) -> None:
    storage = STORAGE
    output = str(tmp_path)
    storage.write(join(output, "predictions", name), b"part")
    with pytest.raises(RunConflict, match="not a part of run"):
        finished_shards(storage, output, IDENTITY)
