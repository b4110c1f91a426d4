"""Where a worker meets Ray Train: its place in the group, its way to the driver, and notices about its machine."""

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
from pipeline.training.lease import check_driver
from pipeline.training.trainer import Hooks, Trainer
from pipeline.training.world import World

__all__ = ["Board", "TorchConfig", "train_as_worker"]

_BEAT_SECONDS = 1.0


class _TorchBackend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_use_own_interface)
        super().on_start(worker_group, backend_config)


class TorchConfig(ray.train.torch.TorchConfig):  # type: ignore[misc]
    """Ray's own, with gloo on the address by which Ray knows each host."""

    @property
    def backend_cls(self) -> type:
        return _TorchBackend


def _use_own_interface() -> None:
    """Makes gloo talk over the address by which Ray knows this host.

    By itself it takes what the host's name resolves to, which on Debian is 127.0.1.1: its peers would wait in vain.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


@ray.remote(num_cpus=0, max_restarts=-1)
class Board:
    """Carries lines and signs of life from rank 0 to the driver, which a worker's own output would reach garbled."""

    def __init__(self) -> None:
        self._lines, self._active, self._regroup = list[str](), False, False

    def put(self, line: str) -> None:
        self._lines.append(line)
        self._active = True

    def alive(self) -> bool:
        """Takes a sign of life; says whether the workers are to be regrouped."""
        self._active = True
        return self._regroup

    def regroup(self) -> None:
        self._regroup = True

    def take(self) -> tuple[list[str], bool]:
        taken = self._lines, self._active
        self._lines, self._active = [], False
        return taken


def train_as_worker(settings: dict[str, Any]) -> None:
    """One worker's part of a phase; Ray Train calls it on each."""
    config, board, storage = TrainConfig(**settings["config"]), settings["board"], Storage()
    torch.set_num_threads(max(1, math.floor(config.cpus_per_worker)))
    context = ray.train.get_context()
    size = context.get_world_size()
    patient = World.patient_group() if size > 1 else None
    world = World(context.get_world_rank(), size, ray.train.torch.get_device(), patient)
    contact = _Contact(board, world.rank)
    hooks = Hooks(
        say=lambda line: board.put.remote(line),
        alive=contact.alive,
        leaving=contact.leaving,
        still_ours=lambda: check_driver(storage, config.output, settings["driver"]),
    )
    Trainer(config, world, storage, hooks).run(settings["stages"])


class _Contact:
    """A worker's signs of life to the driver, and what it hears of its machine and of the group."""

    def __init__(self, board: Any, rank: int) -> None:
        self._board, self._rank = board, rank
        self._answer: Any = None
        self._last, self._regroup = 0.0, False

    def alive(self) -> None:
        """Tells the driver, now and then; never waits for an answer."""
        if self._rank or time.monotonic() - self._last < _BEAT_SECONDS:
            return
        self._last = time.monotonic()
        with suppress(ray.exceptions.RayError):
            if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
                self._regroup = self._regroup or ray.get(self._answer)
            self._answer = self._board.alive.remote()

    def leaving(self) -> bool:
        """Whether this machine is about to be taken away, or the driver wants another group."""
        # The public question is a collective of all workers; each one's own notice is what the step sums up anyway.
        return self._regroup or get_train_context().preemption_context.preemption_info is not None
