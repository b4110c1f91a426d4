"""Ray Train side of a worker: rank in the group, messages to the driver, and preemption notices."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import Any

import psutil
import ray
import ray.train
import ray.train.torch
import ray.util
import torch
from ray.train.v2._internal.execution.context import get_train_context

from pipeline.data.storage import Storage
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import Hooks, Trainer
from pipeline.training.engine.world import World
from pipeline.training.runs.lease import check_driver

__all__ = ["ProgressActor", "TorchConfig", "train_as_worker"]

# Seconds between two heartbeats to the driver.
_BEAT_SECONDS = 1.0


class _TorchBackend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray's torch backend that selects the network interface of gloo before the process group starts."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_use_own_interface)
        super().on_start(worker_group, backend_config)


class TorchConfig(ray.train.torch.TorchConfig):  # type: ignore[misc]
    """Ray's torch configuration, with gloo bound to the address under which Ray knows each host."""

    @property
    def backend_cls(self) -> type:
        """Class of the backend that Ray starts."""
        return _TorchBackend


def _use_own_interface() -> None:
    """Bind gloo to the network interface whose address Ray uses for this host.

    The default of gloo is the address to which the host name resolves. On Debian that is 127.0.1.1, which peers cannot
    reach.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


@ray.remote(num_cpus=0, max_restarts=-1)
class ProgressActor:
    """Ray actor that carries progress lines and heartbeats from rank 0 to the driver.

    Output that a worker prints itself would reach the driver garbled.
    """

    def __init__(self) -> None:
        self._lines = list[str]()
        self._active = False
        self._regroup = False

    def put(self, line: str) -> None:
        """Add a line for the driver to print; it counts as a heartbeat."""
        self._lines.append(line)
        self._active = True

    def heartbeat(self) -> bool:
        """Record a heartbeat, and return whether the workers must regroup."""
        self._active = True
        return self._regroup

    def regroup(self) -> None:
        """Request that the workers stop after a checkpoint, so that the driver can start another group."""
        self._regroup = True

    def take(self) -> tuple[list[str], bool]:
        """Return the lines since the last call, and whether there was any heartbeat; then clear both."""
        taken = self._lines, self._active
        self._lines = []
        self._active = False
        return taken


def train_as_worker(settings: dict[str, Any]) -> None:
    """Run one worker's part of a phase; Ray Train calls this function on every worker.

    Args:
        settings: Configuration (`config`), stages of the phase (`stages`), number of the driver (`driver`), and handle
            of the `ProgressActor` actor (`board`).
    """
    config = TrainConfig(**settings["config"])
    board = settings["board"]
    storage = Storage()
    torch.set_num_threads(max(1, math.floor(config.cpus_per_worker)))
    context = ray.train.get_context()
    size = context.get_world_size()
    # A group with a long timeout, for barriers during uploads and validations.
    patient = World.barrier_group() if size > 1 else None
    world = World(context.get_world_rank(), size, ray.train.torch.get_device(), patient)
    contact = _Contact(board, world.rank)
    hooks = Hooks(
        log=lambda line: board.put.remote(line),
        heartbeat=contact.heartbeat,
        should_regroup=contact.should_regroup,
        check_lease=lambda: check_driver(storage, config.output, settings["driver"]),
    )
    Trainer(config, world, storage, hooks).run(settings["stages"])


class _Contact:
    """Signs of life from a worker to the driver, and requests to regroup.

    Args:
        board: Handle of the `ProgressActor` actor.
        rank: Rank of the worker; only rank 0 sends heartbeats.
    """

    def __init__(self, board: Any, rank: int) -> None:
        self._board = board
        self._rank = rank
        self._answer: Any = None
        self._last = 0.0
        self._regroup = False

    def heartbeat(self) -> None:
        """Send a heartbeat at most once a second from rank 0, without waiting for the answer."""
        if self._rank or time.monotonic() - self._last < _BEAT_SECONDS:
            return
        self._last = time.monotonic()
        # A lost actor must not end the training; Ray restarts it.
        with suppress(ray.exceptions.RayError):
            # Read the answer to an earlier call, if it has arrived.
            if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
                self._regroup = self._regroup or ray.get(self._answer)
            self._answer = self._board.heartbeat.remote()

    def should_regroup(self) -> bool:
        """Return whether this machine is about to be taken away, or the driver has requested another group."""
        # Ray's public API is a collective call of all workers. The local notice suffices, as each step sums them.
        return self._regroup or get_train_context().preemption_context.preemption_info is not None
