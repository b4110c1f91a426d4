"""Ray actors of a run: one that keeps the ledger and outlives the others, and those that turn shards into parts."""

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

from model.errors import CheckpointError
from model.kernels.preparation import prepare
from model.networks.network import Network
from model.networks.program.front_end import check_golden
from model.prediction.streams import Streams
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, PipelineError, RunConflict
from pipeline.ray_backend.cluster import departed_nodes
from pipeline.segmentation.config import SegmentConfig, network_of
from pipeline.segmentation.failures import end_if_context_is_broken
from pipeline.segmentation.runs.shards import ShardReader, part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.supervision import Attempt, Ledger, ReadWriteLock, ShardObserver, Watchdog

__all__ = ["ActorTask", "ShardActor", "start_ledger_actor"]

logger = logging.getLogger(__name__)
# Longest wait for an answer of the ledger.
_ANSWER_SECONDS = 30.0
# Shortest intervals between heartbeats, and between reports of finished images.
_SIGN_SECONDS = 1.0
_NEWS_SECONDS = 0.25
# Threads that load and encode request the interpreter's lock often. The thread that drives the network must not wait
# longer than this for it. Python's default is 5 ms, half of an image's time on a GPU.
_SWITCH_SECONDS = 0.0005


def start_ledger_actor(config: SegmentConfig) -> Any:
    """Start the actor that keeps the run's ledger, if possible on the driver's node.

    An image that kills a worker's node then does not kill the ledger.

    Returns:
        Handle of the actor.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Ledger)
    return board.remote(config.image_attempts, departed_nodes)


@dataclass(frozen=True)
class ActorTask:
    """Constructor argument of an actor; small, because Ray keeps it to restart the actor.

    Attributes:
        config: Configuration of the run.
        checkpoint_sha256: Expected SHA-256 of the checkpoint file.
        identity: Identity of the run.
        board: Handle of the actor that keeps the ledger.
        transform_bytes: Bytes that transformed convolution weights may take.
    """

    config: SegmentConfig
    checkpoint_sha256: str
    identity: str
    board: Any
    transform_bytes: int


class ShardActor:
    """Actor that turns shards into parts.

    The constructor runs in the actor and builds everything heavy, so that a restart builds it again.

    Args:
        task: Configuration, checkpoint and ledger of the run.

    Raises:
        RunConflict: If the checkpoint was replaced after the plan was made.
    """

    def __init__(self, task: ActorTask) -> None:
        self._task = task
        self._storage = Storage()
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
        self._turns = ReadWriteLock()
        self._node = ray.get_runtime_context().get_node_id()

    def network(self, checkpoint: bytes) -> Network:
        """Build the network from the bytes of a checkpoint, prepared for the device that predicts."""
        network = network_of(self._task.config, checkpoint).to("cuda" if self._task.config.gpus_per_actor else "cpu")
        try:
            check_golden(network)
        except CheckpointError as error:
            raise ConfigError(f"{self._task.config.checkpoint} cannot be used: {error}") from error
        return prepare(network, self._task.transform_bytes, compile_kernels=self._task.config.compile)

    def streams(self, network: Network) -> Streams:
        """Return new streams of the network's device."""
        return Streams.of(next(network.parameters()).device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Turn a shard into a part, unless its part is written already; Ray Data calls this from several threads.

        Args:
            row: Row of the dataset, with the number of the `shard`.

        Returns:
            Receipt: the `shard`, its number of `images`, and `created`, which is True if storage holds exactly this
            result.

        Raises:
            IncompleteRun: If too many attempts at the shard died outside any image.
        """
        shard = int(row["shard"])
        with self._turns.shared():
            attempt = self._begin(shard, exclusive=False)
            if attempt is not None and not attempt.isolated:
                return self._work(shard, attempt)
        # No other shard may run beside an isolated attempt: if the process dies, the recorded image must be the cause.
        # Shared access is released first, because exclusive access waits for all who have it.
        if attempt is not None:
            with self._turns.exclusive():
                attempt = self._begin(shard, exclusive=True)
                if attempt is not None:
                    return self._work(shard, attempt)
        return {"shard": shard, "images": 0, "created": False}

    def _work(self, shard: int, attempt: Attempt) -> dict[str, Any]:
        """Segment the images of a shard and write its part; return the receipt.

        The process ends if its CUDA context broke: no later image of this process could be predicted.
        """
        task = self._task
        observer = _Reporter(task.board, shard, attempt, self._watchdog)
        try:
            result = self._segmenter.segment(self._manifest.rows(shard), observer)
        except RuntimeError as error:
            end_if_context_is_broken(error)
            raise
        observer.images_done()
        data = part_bytes(result.table, result.confusion, shard, task.identity)
        # The first PUT wins; a later writer (a retry, a zombie, another driver) discards its result.
        created = self._storage.write_once(part_uri(task.config.output, shard, task.identity), data)
        # Only after the PUT: the ledger never starts another attempt at a shard that has ended.
        task.board.end.remote(shard)
        return {"shard": shard, "images": result.table.num_rows, "created": created}

    def _begin(self, shard: int, *, exclusive: bool) -> Attempt | None:
        """Start the shard's next attempt in the ledger; return an ordinary attempt if the ledger does not answer.

        Args:
            shard: Number of the shard.
            exclusive: Whether this thread has exclusive access to the process.

        Returns:
            Instructions for the attempt; None if the shard has ended.

        Raises:
            IncompleteRun: If the ledger gives up on the shard.
        """
        try:
            answer = self._task.board.begin.remote(shard, self._node, exclusive=exclusive)
            attempt: Attempt | None = ray.get(answer, timeout=_ANSWER_SECONDS)
        except PipelineError:
            raise
        except ray.exceptions.RayError:
            # Without an answer, this attempt has no quarantine and reports no progress, but its results are complete.
            return Attempt()
        return attempt


class _Reporter(ShardObserver):
    """Observer that reports images to the ledger, and in an isolated attempt every stage before it starts.

    Args:
        board: Handle of the actor that keeps the ledger.
        shard: Number of the shard.
        attempt: Instructions for the attempt.
        watchdog: Watchdog of the process, which limits the time of every step.
    """

    def __init__(self, board: Any, shard: int, attempt: Attempt, watchdog: Watchdog) -> None:
        self._board = board
        self._shard = shard
        self._attempt = attempt
        self._watchdog = watchdog
        self._last_sign = self._last_news = 0.0
        self._done = self._failed = 0
        self.quarantined = attempt.quarantined
        self.overlapping = not attempt.isolated

    def image(self, ok: bool) -> None:
        """Count an image, and report the counts if the last report is old enough."""
        self._done += 1
        self._failed += not ok
        # One message per image would be hundreds of messages a second on a GPU.
        if time.monotonic() - self._last_news > _NEWS_SECONDS:
            self._tell()

    def stage(self, position: int, name: str) -> None:
        """Record the stage of the image in the ledger, if the attempt is isolated."""
        self._stand((position, name))

    def images_done(self) -> None:
        """Report the last images, and record that no image is to blame if the process dies from here on."""
        self._tell()
        self._stand(None)

    def _tell(self) -> None:
        """Send the counts of images since the last report to the ledger, without waiting for it."""
        self._last_news = time.monotonic()
        self._board.images.remote(self._shard, self._attempt.number, self._done, self._failed)
        self._done = self._failed = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Limit the time of a step; each call of the yielded function renews the limit and sends a heartbeat."""
        with self._watchdog.step(name) as renew:

            def on_part() -> None:
                renew()
                # A heartbeat a second at most: images with many small parts must not flood the ledger.
                if time.monotonic() - self._last_sign > _SIGN_SECONDS:
                    self._last_sign = time.monotonic()
                    self._board.heartbeat.remote()

            yield on_part

    def _stand(self, place: tuple[int, str] | None) -> None:
        """Record the position and stage in the ledger, if the attempt is isolated; None: outside any image."""
        if not self._attempt.isolated:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            # The answer is awaited, because a message that is still in this process would be lost with it.
            ray.get(self._board.record_stage.remote(self._shard, self._attempt.number, place), timeout=_ANSWER_SECONDS)
