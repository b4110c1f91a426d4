"""Tests of segmentation across hosts: late writes of a host that loses the head but not the bucket change nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.object_store import ObjectStore
from pipeline.data.storage import join
from pipeline.results.verify import verify
from tests.hosts.cluster import HostCluster, await_true, ray_on
from tests.hosts.namespaces import Host, Network
from tests.hosts.test_training import WATCHFUL
from tests.segmentation.support import assert_same_tables, config_of, run_here, write_inputs
from tests.shared import STORAGE

pytestmark = pytest.mark.timeout(600, method="signal")
IMAGES = 150
SHARD = 5
START_SECONDS = 180.0
END_SECONDS = 300.0


@pytest.fixture
def cluster(hosts: Network, object_store: ObjectStore, tmp_path: Path) -> Iterator[HostCluster]:
    with ray_on(hosts.hosts, object_store.env, tmp_path, WATCHFUL) as running:
        yield running


def actors(host: Host) -> list[psutil.Process]:
    """Return the processes on a host that turn shards into parts."""
    found = []
    for pid in host.pids():
        with contextlib.suppress(psutil.Error):
            if "ShardActor" in " ".join((process := psutil.Process(pid)).cmdline()):
                found.append(process)
    return found


def versions(output: str) -> dict[str, str | None]:
    return {info.uri: info.version for info in STORAGE.list(output)}


def test_a_host_that_loses_the_head_and_keeps_the_bucket(cluster: HostCluster, bucket: str, tmp_path: Path) -> None:
    inputs = write_inputs(bucket, IMAGES, bad=(30,))
    output = join(bucket, "out")
    script = ["python", "jobs/segment_bucket.py", *inputs.arguments(shard_images=SHARD, actors=3)]
    with contextlib.ExitStack() as back, cluster.submit(script) as job:
        await_true(lambda: len(versions(join(output, "predictions"))) >= 2, "two parts", START_SECONDS, job)
        victim = next(host for host in cluster.workers if actors(host))
        zombies = actors(victim)
        victim.turn_from(cluster.head)
        back.callback(victim.turn_back, cluster.head)
        struck = time.monotonic()
        before = len(versions(join(output, "predictions")))
        dead = await_true(lambda: victim.address not in cluster.alive(), "the loss of a node", 120, job)
        assert job.finish(END_SECONDS) == 0, job.text
    print(
        f"\n  host {victim.name} lost the head with {before} of {IMAGES // SHARD} parts there; Ray marked it dead after"
    )
    print(f"  {dead - struck:.1f} s, the run had ended after {time.monotonic() - struck:.1f} s", flush=True)
    committed = versions(output)
    # The raylet ends after it has missed the head for long enough; until then its actor may finish its shard.
    psutil.wait_procs(zombies, timeout=60)
    assert versions(output) == committed
    assert verify(output).ok
    run_here(config_of(inputs, shard_images=SHARD, output=str(tmp_path / "calm")))
    assert_same_tables(output, str(tmp_path / "calm"))
