"""Random faults against a cluster and its storage, counted by kind."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import psutil

from demo.cluster import Cluster
from tests.chaos.deadly_images import DecoderLog
from tests.chaos.fault_proxy import Fault, FaultProxy, random_fault, random_weather
from tests.chaos.memory_limit import memory_limit
from tests.chaos.spot_nodes import SpotNodes
from tests.job_helpers import ray_processes

__all__ = ["Assaults"]

# Relative frequencies: common faults of a cluster of spot machines have a high weight, rare ones a low weight.
_KINDS = {
    "actor killed": 4.0,
    "actor out of memory": 1.0,
    "actor stopped": 4.0,
    "board killed": 0.5,
    "driver killed": 0.2,
    "driver terminated": 0.1,
    "node added": 0.15,
    "node drained": 0.15,
    "node killed": 0.15,
    "storage": 3.0,
    "storm": 0.5,
}
_PAUSE = (0.3, 2.5)  # seconds between two faults
_STOPPED = (0.5, 4.0)  # seconds for which an actor is stopped
_NOTICE = (1.0, 8.0)  # seconds between the notice of a preemption and the end of the node
_STORM_SECONDS = 4.0
# Files of a commit; the driver is killed when it is about to write one of them.
_COMMIT_FILES = ("class_scores.parquet", "_SUCCESS.json")
# Probability that an actor is killed while it starts, if it is chosen.
_STARTING = 0.2
# Outside kills of actors that work on one shard, fewer than the attempts after which an image is quarantined.
_MOST_KILLS = 2


class Assaults:
    """Source of random faults in a cluster and its storage; it also repairs what does not recover by itself.

    A run quarantines an image in which three processes died. Kills from outside must not do that to an innocent image,
    nor decide the stage of a deadly one. An actor is therefore spared if `_MOST_KILLS` actors were already killed while
    they worked on the same shard, or if the shard has a deadly image. The record of the decoders tells on which shard
    an actor works: on that of the newest file. This is wrong only while the first image of a shard is fetched, so an
    innocent image is quarantined only if this short moment is hit three times for one shard.

    Attributes:
        cluster: Cluster to break; its head is left alone.
        counts: Faults by kind, if they hit something; requests that the proxy broke, and processes that images killed,
            are counted one by one.

    Args:
        rng: Source of all random numbers.
        cluster: Cluster to break.
        proxy: Proxy in front of the storage.
        folder: Folder for the output of nodes.
        shards: Number of the shard, by the digest of each image and label.
        deadly: Numbers of the shards with deadly images.
    """

    def __init__(
        self,
        rng: random.Random,
        cluster: Cluster,
        proxy: FaultProxy,
        folder: Path,
        shards: Mapping[str, int],
        deadly: Collection[int],
    ) -> None:
        self.cluster = cluster
        self.counts = Counter[str]()
        self._rng = rng
        self._proxy = proxy
        self._shards = shards
        self._deadly = deadly
        self._next = 0.0
        self._storm_ends = 0.0
        self._nodes = SpotNodes(cluster, folder)
        self._timers: list[threading.Timer] = []
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> Assaults:
        self._memory = self._contexts.enter_context(memory_limit())
        if self._memory is None:
            print("this machine allows no memory cgroup: no actor will run out of memory", flush=True)
        self._contexts.enter_context(self._nodes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for timer in self._timers:
            timer.join(timeout=10)
        self._contexts.close()

    def begin_run(self, number: int, decoders: DecoderLog) -> None:
        """Prepare for a run: choose the file of its commit at which the driver is killed."""
        self._decoders = decoders
        self._kills = Counter[int | None](dict.fromkeys(self._deadly, _MOST_KILLS))
        self._deaths_before = self.counts["killed by an image"]
        # The request waits in the proxy, and does not reach the storage, until the driver is dead.
        file = _COMMIT_FILES[number % len(_COMMIT_FILES)]
        self._commit: Fault | None = Fault("stall", method="PUT", path=file, seconds=20)
        self._calm()

    def maybe(self, driver: subprocess.Popen[str], *, progressed: bool) -> None:
        """Cause the next fault if its time has come.

        Args:
            driver: Process of the submission.
            progressed: Whether the submission has written a part. The driver is killed only then, or a busy machine
                would spend its time on starts.
        """
        now = time.monotonic()
        if self._storm_ends and now > self._storm_ends:
            self._calm()
        self._count()
        if self._commit is not None and any(fault is self._commit for fault, _ in self._proxy.injected):
            driver.kill()
            self.counts["driver killed before " + self._commit.path] += 1
            self._commit = None
        if now < self._next:
            return
        self._next = now + self._rng.uniform(*_PAUSE)
        kind = self._rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        # Always draw the same random numbers, even without a victim, so that the sequence of faults depends on the seed
        # alone.
        fate = self._rng.random()
        index = self._rng.randrange(1000)
        if kind.startswith("driver") and not progressed:
            return
        if self._do(kind, driver, fate, index):
            self.counts[kind] += 1

    def _count(self) -> None:
        """Update the counts of faults that are counted one by one."""
        self.counts["requests"] = len(self._proxy.injected)
        self.counts["killed by an image"] = self._deaths_before + self._decoders.deaths
        if self._memory is not None:
            self.counts["actor out of memory"] = self._memory.kills

    def _do(self, kind: str, driver: subprocess.Popen[str], fate: float, index: int) -> bool:
        if kind.startswith("driver"):
            driver.send_signal(signal.SIGKILL if kind == "driver killed" else signal.SIGTERM)
            return True
        if kind == "node added":
            return self._nodes.add()
        if kind == "node killed":
            return self._nodes.kill()
        if kind == "node drained":
            return self._nodes.preempt(_between(_NOTICE, fate))
        if kind == "storage":
            self._calm()
            rng = random.Random(index)
            self._proxy.inject(*(replace(random_fault(rng), after=2 * n) for n in range(1 + index % 6)))
            return False  # counted request by request
        if kind == "storm":
            self._proxy.storm(random_weather(index, 0.25))
            self._storm_ends = time.monotonic() + _STORM_SECONDS
            return False
        victims = sorted(ray_processes("Ledger" if kind == "board killed" else "ShardActor"), key=lambda p: p.pid)
        if not victims:
            return False
        victim = victims[index % len(victims)]
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if kind == "actor stopped":
                victim.suspend()
                self._resume_later(victim, _between(_STOPPED, fate))
                return True
            if kind == "board killed":
                victim.kill()
                return True
            return self._kill_actor(victim, fate, out_of_memory=kind == "actor out of memory")
        return False

    def _calm(self) -> None:
        """Remove the storm and all faults that have hit nothing, which would pile up, except for that of the commit."""
        self._proxy.clear()
        self._storm_ends = 0.0
        if self._commit is not None:
            self._proxy.inject(self._commit)

    def _kill_actor(self, victim: psutil.Process, fate: float, *, out_of_memory: bool) -> bool:
        """Kill an actor unless it must be spared; return whether it was killed by a signal of this process."""
        newest = self._decoders.newest(victim.pid)
        if newest is None:
            # An actor that still starts is usually spared, or no actor of a busy machine would ever finish its start.
            shard = None
            spared = fate > _STARTING
        else:
            shard = self._shards[newest]
            spared = self._kills[shard] >= _MOST_KILLS
        if spared:
            return False
        self._kills[shard] += 1
        if not out_of_memory:
            victim.kill()
            return True
        if self._memory is not None:
            self._memory.add(victim.pid)
        return False  # counted when the kernel has killed it

    def _resume_later(self, victim: psutil.Process, seconds: float) -> None:
        def resume() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.resume()

        timer = threading.Timer(seconds, resume)
        timer.start()
        self._timers.append(timer)


def _between(limits: tuple[float, float], fate: float) -> float:
    """Return the point between two limits at the fraction `fate`, 0 to 1."""
    low, high = limits
    return low + fate * (high - low)
