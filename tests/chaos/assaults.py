"""Random faults against a cluster and its storage, counted by kind."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import psutil

from demo.cluster import Cluster
from tests.chaos.fault_proxy import FaultProxy, random_fault, random_weather
from tests.job_helpers import joined_node, ray_processes

__all__ = ["Assaults"]

# Relative frequencies: common faults of a cluster of spot machines have a high weight, rare ones a low weight.
_KINDS = {
    "actor killed": 8.0,
    "actor stopped": 4.0,
    "board killed": 1.0,
    "driver killed": 0.4,
    "driver terminated": 0.2,
    "node killed": 0.4,
    "storage": 8.0,
    "storm": 1.0,
}
_PAUSE = (0.3, 3.0)  # seconds between two faults
_STOPPED = (0.5, 4.0)  # seconds for which an actor is stopped
_STORM_SECONDS = 4.0


class Assaults:
    """Source of random faults in a cluster and its storage; it also repairs what does not recover by itself.

    Attributes:
        cluster: Cluster to break; its head is left alone.
        counts: Faults by kind, if they hit something; requests that the proxy broke are counted one by one.
    """

    def __init__(self, rng: random.Random, cluster: Cluster, proxy: FaultProxy, folder: Path) -> None:
        self.cluster = cluster
        self.counts = Counter[str]()
        self._rng = rng
        self._proxy = proxy
        self._folder = folder
        self._next = 0.0
        self._storm_ends = 0.0
        self._broken = 0
        self._node = contextlib.ExitStack()
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Assaults:
        self._node.enter_context(joined_node(self.cluster, self._folder, cpus=2))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for timer in self._timers:
            timer.join(timeout=10)
        self._node.close()

    def maybe(self, driver: subprocess.Popen[str]) -> None:
        """Cause the next fault if its time has come."""
        now = time.monotonic()
        if self._storm_ends and now > self._storm_ends:
            self._proxy.clear()
            self._storm_ends = 0.0
        self.counts["requests"] = len(self._proxy.injected)
        if now < self._next:
            return
        self._next = now + self._rng.uniform(*_PAUSE)
        kind = self._rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        # Always draw the same random numbers, even without a victim, so that the sequence of faults depends on the seed
        # alone.
        fate = self._rng.random()
        index = self._rng.randrange(1000)
        if self._do(kind, driver, fate, index):
            self.counts[kind] += 1

    def _do(self, kind: str, driver: subprocess.Popen[str], fate: float, index: int) -> bool:
        if kind.startswith("driver"):
            driver.send_signal(signal.SIGKILL if kind == "driver killed" else signal.SIGTERM)
            return True
        if kind == "node killed":
            return self._kill_node()
        if kind == "storage":
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
        with contextlib.suppress(psutil.NoSuchProcess):
            if kind != "actor stopped":
                victim.kill()
                return True
            victim.suspend()
            low, high = _STOPPED
            self._resume_later(victim, low + fate * (high - low))
            return True
        return False

    def _resume_later(self, victim: psutil.Process, seconds: float) -> None:
        def resume() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.resume()

        timer = threading.Timer(seconds, resume)
        timer.start()
        self._timers.append(timer)

    def _kill_node(self) -> bool:
        """Kill the raylet beside the head, and its workers with it, and start another node in its place."""
        raylets = [each for each in ray_processes("node_ip_address=127.0.0.2") if each.name() == "raylet"]
        for raylet in raylets:
            raylet.kill()
        self._node.close()
        self._node.enter_context(joined_node(self.cluster, self._folder, cpus=2))
        return bool(raylets)
