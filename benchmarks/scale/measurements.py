"""Measurements of `benchmarks.scale`, each run in a process of its own beside the mock bucket.

    AWS_ENDPOINT_URL=… python -m benchmarks.scale.measurements submission 1000000

Every measurement prints JSON. Seconds are wall time, and `cpu_seconds` the CPU time of this process without the
server's. Memory is the peak of resident memory so far, in MiB. The server counts the requests.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale.meter import TimedStorage, measured, peak_mib, resident_mib, temporary_bytes
from benchmarks.scale.remote import Numbers
from benchmarks.scale.whole_runs import run_config, segmented_scenes, whole_run, write_network
from pipeline.data.storage import Storage
from pipeline.results.tables import SUCCESS
from pipeline.segmentation.runs.claim import claim
from pipeline.segmentation.runs.commit import commit as commit_run
from pipeline.segmentation.runs.plan import Plan, make_plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import part_bytes, part_name, part_uri

__all__ = ["NAMES", "SHARD", "commit", "parts", "submission", "submission_of_list"]

NAMES = "camera-{folder:05d}/{n:09d}.jpg"
SHARD = 64
_LIST = "s3://bucket/list.parquet"
_SCENES = 64


class _Ready(Exception):
    """Raised at the point where the driver would start its actors."""


def submission(rows: int, images: str = "s3://bucket/images") -> Numbers:
    """Measure the driver's work before the first shard, on a first or a later submission.

    That is listing, digest, claim and the search for parts.

    Args:
        rows: Number of images that the bucket lists.
        images: URI of the images, or of a list of them.
    """
    storage = TimedStorage()
    reached = dict[str, Plan]()
    write_network(storage)
    before = peak_mib()

    def run_shards(plan: Plan, shards: list[int]) -> None:
        reached["plan"] = plan
        raise _Ready

    with measured() as found:
        try:
            segment_bucket(run_config(SHARD, images=images), lambda config: None, run_shards, storage)
        except _Ready:
            plan = reached["plan"]
    assert plan.manifest.num_rows == rows, plan.manifest.num_rows
    return {"before_mib": before, **found, **_of_plan(plan, storage)}


def _of_plan(plan: Plan, storage: TimedStorage) -> Numbers:
    """Return figures of a plan: times of listing and digest, size of the manifest, number of shards."""
    wall, cpu = storage.listing
    started = time.process_time()
    plan.manifest.digest()
    digest = time.process_time() - started
    files = storage.list(f"{plan.config.output}/manifest")
    return {
        "listing_seconds": round(wall, 3),
        "listing_cpu_seconds": round(cpu, 3),
        "digest_cpu_seconds": round(digest, 3),
        "manifest_files": len(files),
        "manifest_bytes": sum(info.size for info in files),
        "temporary_bytes": temporary_bytes(),
        "shards": plan.shards,
        "part_format": part_name(0, plan.identity).replace("000000", "{n:06d}", 1),
    }


def submission_of_list(rows: int) -> Numbers:
    """Measure the submission of a Parquet file that names `rows` images."""
    names = [f"s3://bucket/images/{NAMES.format(n=n, folder=n // 100_000)}" for n in range(rows)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"image_uri": names}), sink)
    Storage().write(_LIST, sink.getvalue())
    return submission(rows, _LIST)


def parts(count: int, shard_images: int) -> Numbers:
    """Write `count` parts of real rows: 64 scenes repeated, under the names of the manifest."""
    storage = Storage()
    write_network(storage)
    plan = make_plan(run_config(shard_images), storage)
    claim(plan, storage)
    repeats = max(1, shard_images // _SCENES)
    result = segmented_scenes(shard_images // repeats)
    size = 0
    table = pa.concat_tables([result.table] * repeats)
    confusion = repeats * result.confusion
    for shard in range(count):
        data = part_bytes(_renamed(table, plan, shard), confusion, shard, plan.identity)
        storage.write(part_uri(plan.config.output, shard, plan.identity), data)
        size += len(data)
    return {"part_bytes": size // count}


def _renamed(table: pa.Table, plan: Plan, shard: int) -> pa.Table:
    """Return the rows with the run id, and the names and versions that the manifest has for a shard."""
    names = plan.shard_slice(shard)
    columns = {
        "run_id": [plan.run_id] * len(names),
        "image_uri": names["image_uri"].to_pylist(),
        "image_version": names["version"].to_pylist(),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
    return table


def commit(count: int, shard_images: int) -> Numbers:
    """Measure the commit of all parts, and the sizes of `_SUCCESS.json` and of one part's scores."""
    storage = Storage()
    plan = make_plan(run_config(shard_images), storage)
    assert plan.shards == count, plan.shards
    before = peak_mib()
    with measured() as found:
        success = commit_run(plan, storage)
    size = storage.info(f"{plan.config.output}/{SUCCESS}").size
    scores = sum(file["bytes"] for file in success["files"] if file["path"].startswith("image_scores/"))
    return {"parts": count, "before_mib": before, **found, "success_bytes": size, "scores_bytes": scores // count}


def shard_list(shards: int) -> Numbers:
    """Return MiB of the driver's own lists of shards, before Ray gets them: the numbers, and a row for each."""
    before = resident_mib()
    rows = [{"shard": shard} for shard in list(range(shards))]
    return {"shards": len(rows), "mib": round(resident_mib() - before, 1)}


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "submission": submission,
    "submission_of_list": submission_of_list,
    "parts": parts,
    "commit": commit,
    "shard_list": shard_list,
    "labelled_run": lambda images, shard_images: whole_run(images, shard_images, labelled=True),
    "unlabelled_run": lambda images, shard_images: whole_run(images, shard_images, labelled=False),
}

if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    print(json.dumps(MEASUREMENTS[kind](*map(int, given))))
