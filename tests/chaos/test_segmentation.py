"""Tests that killed actors, killed drivers and rival drivers leave the tables of an undisturbed run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from demo.cluster import Cluster
from model.kernels.host_memory import ALLOCATOR_ENVIRONMENT
from pipeline.data.storage import join
from pipeline.results.verify import verify
from tests.job_helpers import await_condition, driver, finish, ray_processes
from tests.segmentation.support import Inputs, assert_same_tables, config_of, run_here, write_inputs
from tests.shared import STORAGE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
IMAGES = 100
SHARD = 5
JOB = "segment_bucket"


@pytest.fixture
def inputs(bucket: str) -> Inputs:
    return write_inputs(bucket, IMAGES, bad=(30,))


def parts(inputs: Inputs) -> int:
    return len(STORAGE.list(join(inputs.root, "out", "predictions")))


def assert_undisturbed(inputs: Inputs, folder: Path) -> None:
    """Assert that every table equals that of a run in this process, except for `seconds`, and that the run verifies."""
    run_here(config_of(inputs, shard_images=SHARD, output=str(folder)))
    assert_same_tables(join(inputs.root, "out"), str(folder))
    assert verify(join(inputs.root, "out")).ok


def test_actors_drivers_and_rivals_in_one_run(cluster: Cluster, inputs: Inputs, tmp_path: Path) -> None:
    """An actor and its driver are killed; then two drivers resume at once, one is killed, and the other commits."""
    command = inputs.arguments(shard_images=SHARD)
    with driver(cluster, JOB, command) as process:
        await_condition(lambda: parts(inputs) >= 2, process)
        victims = ray_processes("ShardActor")
        assert victims, "no actor is running"
        assert victims[0].environ().items() >= ALLOCATOR_ENVIRONMENT.items(), "the actor's memory is given back"
        victims[0].kill()
        before = parts(inputs)
        await_condition(lambda: parts(inputs) > before, process)
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 143
    left = parts(inputs)
    assert left < IMAGES // SHARD
    with driver(cluster, JOB, command) as first, driver(cluster, JOB, command) as second:
        await_condition(lambda: parts(inputs) > left, first)
        first.kill()
        assert finish(first).code == -9
        done = finish(second)
    assert done.code == 0, done.err
    assert_undisturbed(inputs, tmp_path)


def test_two_drivers_at_once(cluster: Cluster, inputs: Inputs, tmp_path: Path) -> None:
    arguments = inputs.arguments(shard_images=SHARD)
    with driver(cluster, JOB, arguments) as first, driver(cluster, JOB, arguments) as second:
        codes = [finish(process).code for process in (first, second)]
    assert codes == [0, 0]
    assert_undisturbed(inputs, tmp_path)
