"""Tests of training across hosts, one of which is lost: training resumes on others and gives the same network."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from demo.object_store import ObjectStore
from pipeline.data.storage import join
from tests.hosts.cluster import HostCluster, Job, await_true, ray_on
from tests.hosts.namespaces import Host, Network
from tests.shared import STORAGE
from tests.training.support import tensors, write_data
from tests.training.test_job import arguments

# Use the signal method: the thread method ends this process at once, before it has cleaned up.
pytestmark = pytest.mark.timeout(900, method="signal")
PROGRESS = r"^(front_end|context|joint) \d+/\d+ "
START_SECONDS = 180.0
LOSS_SECONDS = 300.0
END_SECONDS = 300.0
# Settings from docs/hosts.md: a silent host is lost after 5 · (1 + 3) seconds instead of 5 · (3 + 10).
WATCHFUL = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


@dataclass(frozen=True)
class Fault:
    """Fault of one host in the middle of a run.

    Attributes:
        strike: Function that takes the host away.
        rank: Rank of the worker on the host.
        head_env: Settings of Ray for the head.
    """

    strike: Callable[[Host], None]
    rank: int
    head_env: Mapping[str, str] = field(default_factory=dict)


# Rank 0 writes the checkpoints, and it is the rendezvous of the other workers.
FAULTS = {
    "killed": Fault(Host.kill, rank=1),
    "cut off": Fault(Host.cut, rank=0),
    "cut off, watchful head": Fault(Host.cut, rank=0, head_env=WATCHFUL),
}


@pytest.fixture(scope="session")
def undisturbed(
    hosts: Network, object_store: ObjectStore, _shared_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Train on two hosts without any fault, and return the network's weights."""
    root = join(_shared_bucket, "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.env.items():
            patch.setenv(name, value)
        write_data(root)
        folder = tmp_path_factory.mktemp("undisturbed")
        with ray_on(hosts.hosts, object_store.env, folder) as cluster, cluster.submit(script(root)) as job:
            assert job.finish(START_SECONDS + END_SECONDS) == 0, job.text
            assert len(set(cluster.group())) == 2
        return tensors(join(root, "run"))


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    return FAULTS[request.param]


@pytest.fixture
def cluster(
    hosts: Network, object_store: ObjectStore, undisturbed: object, fault: Fault, tmp_path: Path
) -> Iterator[HostCluster]:
    """Start a new Ray cluster on all hosts, since each test takes a host away.

    It depends on `undisturbed`, which must have ended first, because both use the same ports.
    """
    with ray_on(hosts.hosts, object_store.env, tmp_path, fault.head_env) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS, indirect=True, ids=FAULTS)
def test_a_run_that_loses_a_host_ends_as_one_undisturbed(
    cluster: HostCluster, bucket: str, fault: Fault, undisturbed: dict[str, np.ndarray]
) -> None:
    write_data(bucket)
    with cluster.submit(script(bucket)) as job:
        await_true(lambda: newest_iteration(bucket) > 0, "a checkpoint", START_SECONDS, job)
        before = cluster.group()
        victim = before[fault.rank]
        assert len(set(before)) == 2
        fault.strike(victim)
        after = follow(cluster, job, victim, newest_iteration(bucket), time.monotonic())
        # The machine comes back, which must not disturb the run either.
        victim.plug_in()
        assert job.finish(END_SECONDS) == 0, job.text
    assert len(set(after)) == 2 and victim not in after and set(after) - set(before)
    print(f"  trained on {names(before)}, then on {names(after)}")
    difference = largest_difference(tensors(join(bucket, "run")), undisturbed)
    print(f"  largest difference of a weight from the undisturbed run: {difference:g}", flush=True)
    assert difference == 0


def script(root: str) -> list[str]:
    """Return a command line of three stages on two workers, seconds each, with several checkpoints."""
    options = arguments(root, "run", iterations=60, **{"checkpoint-every": 10})
    return ["python", "jobs/train.py", *options]


def newest_iteration(root: str) -> int:
    """Return the iteration of the newest checkpoint of the first stage; 0 if there is none."""
    stems = [Path(info.uri).stem for info in STORAGE.list(join(root, "run", "checkpoints"))]
    return max((int(stem.rsplit("-", 1)[1]) for stem in stems if stem.startswith("00-")), default=0)


def follow(cluster: HostCluster, job: Job, victim: Host, saved: int, struck: float) -> list[Host]:
    """Wait until training continues after a host was lost, and print the time of each event.

    Args:
        cluster: Cluster that has lost a host.
        job: Training job.
        victim: Host that was lost.
        saved: Iteration of the newest checkpoint at that time.
        struck: Time of the loss, in seconds of `time.monotonic`.

    Returns:
        The hosts of the new workers, by rank.
    """
    dead = await_true(lambda: victim.address not in cluster.alive(), "the loss of a node", LOSS_SECONDS, job)
    failed = job.await_line("failure 1", LOSS_SECONDS, struck)
    resumed = job.await_line(r"resuming stage \w+ at iteration \d+", LOSS_SECONDS, struck)
    going = job.await_line(PROGRESS, LOSS_SECONDS, resumed.at)
    print(f"\n  host {victim.name} lost, newest checkpoint at iteration {saved}; seconds from then on:")
    events = {"Ray has marked the node dead": dead, "the driver has given the workers up": failed.at}
    for what, at in {**events, resumed.text: resumed.at, going.text: going.at}.items():
        print(f"  {at - struck:6.1f}  {what}")
    iteration = re.search(r"front_end at iteration (\d+)", resumed.text)
    assert iteration and int(iteration[1]) >= saved, resumed.text
    return cluster.group()


def largest_difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


def names(hosts: list[Host]) -> str:
    return " and ".join(host.name for host in hosts)
