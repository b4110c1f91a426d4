"""Tests of a node that freezes and returns, and of a lost head, on a cluster of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.cluster import Cluster, local_cluster
from pipeline.data.storage import join
from pipeline.results.verify import verify
from tests.job_helpers import await_condition, driver, finish, joined_node, ray_processes, run_job
from tests.segmentation.support import Inputs, assert_same_tables, config_of, run_here, write_inputs
from tests.shared import STORAGE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
IMAGES = 100
SHARD = 5
JOB = "segment_bucket"
# Seconds. By default Ray waits a minute and more; these settings shorten that.
QUICK = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}


@pytest.fixture
def inputs(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    return write_inputs(bucket, IMAGES, bad=(30,))


def parts(inputs: Inputs) -> int:
    return len(STORAGE.list(join(inputs.root, "out", "predictions")))


def assert_undisturbed(inputs: Inputs, folder: Path) -> None:
    run_here(config_of(inputs, shard_images=SHARD, output=str(folder)))
    assert_same_tables(join(inputs.root, "out"), str(folder))
    assert verify(join(inputs.root, "out")).ok


@contextlib.contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Stop all of the processes, as if their machine were away."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_node_that_freezes_is_replaced_and_what_it_writes_when_it_wakes_is_dropped(
    inputs: Inputs, tmp_path: Path
) -> None:
    """The node's actors wake as zombies with shards that other actors have already finished."""
    arguments = inputs.arguments(shard_images=SHARD, actors=4)
    with (
        local_cluster(tmp_path / "head.log", cpus=2) as cluster,
        joined_node(cluster, tmp_path, cpus=2) as added,
        driver(cluster, JOB, arguments) as process,
    ):
        await_condition(lambda: parts(inputs) >= 2, process)
        (raylet,) = added.raylets()
        node = [raylet, *raylet.children(recursive=True)]
        zombies = [each for each in node if "ShardActor" in " ".join(each.cmdline())]
        assert zombies, "no actor is on that node"
        with frozen(node):
            done = finish(process)
            before = {info.uri: info.version for info in STORAGE.list(join(inputs.root, "out"))}
        # The raylet learns that the cluster gave it up, and ends with its workers; until then they still write.
        psutil.wait_procs(zombies, timeout=30)
    assert done.code == 0, done.err
    assert {info.uri: info.version for info in STORAGE.list(join(inputs.root, "out"))} == before
    assert_undisturbed(inputs, tmp_path / "calm")


def test_a_lost_head_ends_the_job_and_another_cluster_ends_the_run(inputs: Inputs, tmp_path: Path) -> None:
    arguments = inputs.arguments(shard_images=SHARD)
    with local_cluster(tmp_path / "head.log", cpus=2) as first, driver(first, JOB, arguments) as process:
        await_condition(lambda: parts(inputs) >= 2, process)
        # Another cluster of this session may run beside this one.
        port = first.address.rpartition(":")[2]
        (head,) = (each for each in ray_processes(f"gcs_server_port={port}") if each.name() == "gcs_server")
        head.kill()
        done = finish(process, 120)
        assert (done.code, done.out) == (3, "")
        assert "finished work is kept" in done.err.splitlines()[-1] and "StackTrace" not in done.err
    assert not STORAGE.exists(join(inputs.root, "out", "_SUCCESS.json"))
    with local_cluster(tmp_path / "second.log", cpus=2) as second:
        again = _finished(second, arguments)
    assert again == 0
    assert_undisturbed(inputs, tmp_path / "calm")


def _finished(cluster: Cluster, arguments: list[str]) -> int:
    done = run_job(cluster, JOB, arguments)
    print(done.err)
    return done.code
