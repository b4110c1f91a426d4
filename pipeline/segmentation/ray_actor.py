"""What runs in Ray's actors: one board that outlives the others, and actors that turn shards into parts."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model.checkpoint import from_bytes
from model.network import DilatedNetwork
from model.preparation import prepare
from model.streams import Streams
from pipeline.data.storage import Storage
from pipeline.errors import PipelineError, RunConflict
from pipeline.segmentation.attempts import Attempt, Ledger
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.parts import part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.shards import ShardReader
from pipeline.segmentation.surroundings import Surroundings
from pipeline.segmentation.turns import Turns
from pipeline.segmentation.watchdog import Watchdog

__all__ = ["ActorTask", "ShardActor", "start_board"]

logger = logging.getLogger(__name__)
_ANSWER_SECONDS = 30.0
_SIGN_SECONDS = 1.0
_NEWS_SECONDS = 0.25
# Threads that load and encode ask for the interpreter's lock often; the one that drives the network must not wait for
# it longer than this. Python's default is 5 ms, half of an image's time on a GPU.
_SWITCH_SECONDS = 0.0005


def start_board(config: SegmentConfig) -> Any:
    """An actor that keeps the run's ledger, on the driver's own node: images that kill nodes do not kill it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Ledger)
    return board.remote(config.image_attempts)


@dataclass(frozen=True)
class ActorTask:
    """All that an actor needs to know; small, since Ray keeps it to restart the actor."""

    config: SegmentConfig
    checkpoint_sha256: str
    identity: str
    board: Any
    transform_bytes: int


class ShardActor:
    """Turns shards into parts. Everything heavy is built here, in the actor, so that a restart builds it again."""

    def __init__(self, task: ActorTask) -> None:
        self._task, self._storage = task, Storage()
        config = task.config
        torch.set_num_threads(max(1, math.floor(config.cpus_per_actor)))
        sys.setswitchinterval(_SWITCH_SECONDS)
        checkpoint = self._storage.read(config.checkpoint)
        if hashlib.sha256(checkpoint).hexdigest() != task.checkpoint_sha256:
            raise RunConflict(f"{config.checkpoint} was replaced while the run was starting: submit it again")
        network = self.network(checkpoint)
        self._segmenter = Segmenter(network, config, task.identity[:16], self._storage, self.streams(network))
        self._manifest = ShardReader(self._storage, config.output, config.shard_images)
        self._watchdog = Watchdog(config.step_seconds)
        self._turns = Turns()

    def network(self, checkpoint: bytes) -> DilatedNetwork:
        """What predicts, on the device that predicts."""
        network = from_bytes(checkpoint).to("cuda" if self._task.config.gpus_per_actor else "cpu")
        return prepare(network, self._task.transform_bytes, compile_kernels=self._task.config.compile)

    def streams(self, network: DilatedNetwork) -> Streams:
        """Of its device."""
        return Streams.of(next(network.parameters()).device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = int(row["shard"])
        with self._turns.together():
            attempt = self._begin(shard)
            if attempt is None:
                return {"shard": shard, "images": 0, "created": False}
            if not attempt.careful:
                return self._work(shard, attempt)
        # If this process dies now, it must be clear of which image.
        with self._turns.alone():
            return self._work(shard, attempt)

    def _work(self, shard: int, attempt: Attempt) -> dict[str, Any]:
        task = self._task
        around = _Reporter(task.board, shard, attempt, self._watchdog)
        result = self._segmenter.segment(self._manifest.rows(shard), around)
        around.images_done()
        data = part_bytes(result.table, result.confusion, shard, task.identity)
        # Whoever comes second (a retry, a zombie, another driver) finds the part there, and drops its own.
        created = self._storage.write_once(part_uri(task.config.output, shard, task.identity), data)
        task.board.end.remote(shard)
        return {"shard": shard, "images": result.table.num_rows, "created": created}

    def _begin(self, shard: int) -> Attempt | None:
        """What the board says of this shard; an attempt like any other where it does not answer."""
        try:
            attempt: Attempt | None = ray.get(self._task.board.begin.remote(shard), timeout=_ANSWER_SECONDS)
        except PipelineError:
            raise
        except ray.exceptions.RayError:
            return Attempt()
        return attempt


class _Reporter(Surroundings):
    """Tells the board of images, and in a careful attempt of every stage before it begins."""

    def __init__(self, board: Any, shard: int, attempt: Attempt, watchdog: Watchdog) -> None:
        self._board, self._shard, self._attempt, self._watchdog = board, shard, attempt, watchdog
        self._last_sign = self._last_news = 0.0
        self._done = self._failed = 0
        self.quarantined = attempt.quarantined
        self.overlapping = not attempt.careful

    def image(self, ok: bool) -> None:
        self._done += 1
        self._failed += not ok
        # Not one by one: on a GPU that would be hundreds of messages a second.
        if time.monotonic() - self._last_news > _NEWS_SECONDS:
            self._tell()

    def stage(self, position: int, name: str) -> None:
        self._stand((position, name))

    def images_done(self) -> None:
        """What dies from here on is no image's fault."""
        self._tell()
        self._stand(None)

    def _tell(self) -> None:
        self._last_news = time.monotonic()
        self._board.images.remote(self._shard, self._attempt.number, self._done, self._failed)
        self._done = self._failed = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        with self._watchdog.step(name) as renew:

            def on_part() -> None:
                renew()
                if time.monotonic() - self._last_sign > _SIGN_SECONDS:
                    self._last_sign = time.monotonic()
                    self._board.alive.remote()

            yield on_part

    def _stand(self, place: tuple[int, str] | None) -> None:
        if not self._attempt.careful:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            # Awaited: a message still in this process would die with it.
            ray.get(self._board.stand.remote(self._shard, self._attempt.number, place), timeout=_ANSWER_SECONDS)
