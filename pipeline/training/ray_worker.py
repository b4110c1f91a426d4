"""Where a worker meets Ray Train: its place in the group, its way to the driver, and notices about its machine."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import ray
import ray.train
import ray.train.torch
import ray.util
import torch

from pipeline.data.storage import Storage
from pipeline.training.config import TrainConfig
from pipeline.training.lease import check_driver
from pipeline.training.trainer import Hooks, Trainer
from pipeline.training.world import World

__all__ = ["Board", "TorchConfig", "train_as_worker"]

_NOTICE_SECONDS = 2.0


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
        self._lines, self._active = list[str](), False

    def put(self, line: str) -> None:
        self._lines.append(line)
        self._active = True

    def alive(self) -> None:
        self._active = True

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
    hooks = Hooks(
        say=lambda line: board.put.remote(line),
        alive=_at_most_every(1.0, lambda: board.alive.remote()) if world.rank == 0 else lambda: None,
        leaving=_notice_of_leaving(),
        still_ours=lambda: check_driver(storage, config.output, settings["driver"]),
    )
    Trainer(config, world, storage, hooks).run(settings["stages"])


def _at_most_every(seconds: float, call: Callable[[], Any]) -> Callable[[], None]:
    last = [0.0]

    def sometimes() -> None:
        if time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            call()

    return sometimes


def _notice_of_leaving() -> Callable[[], bool]:
    """Whether Ray knows that a machine of this group will be taken away; asked for in a thread of its own.

    The question is a collective of all workers, so that none may ask more often than the others; threads that do
    nothing else do so in step, and never hold up training.
    """
    noticed = threading.Event()

    def ask() -> None:
        # Ends with the worker group, by whatever error its end is.
        with suppress(Exception):
            while ray.train.get_preemption_info() is None:
                time.sleep(_NOTICE_SECONDS)
            noticed.set()

    threading.Thread(target=ask, name="notice-of-leaving", daemon=True).start()
    return noticed.is_set
