"""The only module where segmentation meets Ray: shards are rows of a Ray dataset, actors make them parts."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
import torch

from model.checkpoint import from_bytes
from pipeline.background import in_background
from pipeline.cluster import describe_cluster, places, quiet_data
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, IncompleteRun, NoProgress, PipelineError, RunConflict, known_cause, last_line
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.parts import part_bytes, part_uri
from pipeline.segmentation.plan import Plan
from pipeline.segmentation.progress import Counts, ProgressLine
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.shards import ShardReader

__all__ = ["check_resources", "run_shards"]

logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


@ray.remote(num_cpus=0, max_restarts=-1)
class _ProgressBoard:
    """Counts images as they are finished, so that progress does not wait for whole shards."""

    def __init__(self) -> None:
        self._images = self._errors = self._shards = 0

    def image(self, ok: bool) -> None:
        self._images += 1
        self._errors += not ok

    def shard(self) -> None:
        self._shards += 1

    def counts(self) -> Counts:
        return Counts(self._images, self._errors, self._shards)


@dataclass(frozen=True)
class _ActorTask:
    """All that an actor needs to know; small, since Ray keeps it to restart the actor."""

    config: SegmentConfig
    checkpoint_sha256: str
    identity: str
    board: Any


class _ShardActor:
    """Turns shards into parts. Everything heavy is built here, in the actor, so that a restart builds it again."""

    def __init__(self, task: _ActorTask) -> None:
        self._task, self._storage = task, Storage()
        config = task.config
        torch.set_num_threads(max(1, math.floor(config.cpus_per_actor)))
        checkpoint = self._storage.read(config.checkpoint)
        if hashlib.sha256(checkpoint).hexdigest() != task.checkpoint_sha256:
            raise RunConflict(f"{config.checkpoint} was replaced while the run was starting: submit it again")
        network = from_bytes(checkpoint).to("cuda" if config.gpus_per_actor else "cpu")
        self._segmenter = Segmenter(network, config, task.identity[:16], self._storage)
        self._manifest = ShardReader(self._storage, config.output, config.shard_images)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard, task = int(row["shard"]), self._task
        result = self._segmenter.segment(self._manifest.rows(shard), lambda ok: task.board.image.remote(ok))
        data = part_bytes(result.table, result.confusion, shard, task.identity)
        # Whoever comes second (a retry, a zombie, another driver) finds the part there, and drops its own.
        created = self._storage.write_once(part_uri(task.config.output, shard, task.identity), data)
        task.board.shard.remote()
        return {"shard": shard, "images": result.table.num_rows, "created": created}


def check_resources(config: SegmentConfig) -> int:
    """Number of actors to start.

    Raises:
        ConfigError: if the cluster cannot hold them; Ray would wait for ever, silently.
    """
    most = places(config.cpus_per_actor, config.gpus_per_actor)
    wanted = config.actors or max(1, most)
    if wanted > most:
        raise ConfigError(
            f"{wanted} actors of {config.cpus_per_actor:g} CPUs and {config.gpus_per_actor:g} GPUs do not fit "
            f"{describe_cluster()}: at most {most} do; lower --actors, --cpus-per-actor or --gpus-per-actor, or add "
            "nodes"
        )
    return wanted


def run_shards(plan: Plan, shards: list[int]) -> None:
    """Makes the parts of `shards`, with progress on standard error.

    Raises:
        IncompleteRun: if nothing is finished for `no_progress_minutes`, or Ray gives up.
        PipelineError: what an actor raised, such as a storage error.
    """
    actors = min(check_resources(plan.config), len(shards))
    board: Any = _ProgressBoard.remote()  # type: ignore[attr-defined]
    task = _ActorTask(plan.config, plan.ingredients["checkpoint"], plan.identity, board)
    dataset = _dataset(plan.config, task, shards, actors)
    try:
        _watch(plan, shards, board, dataset)
    except PipelineError:
        raise
    except Exception as error:
        raise _explained(error) from error


def _dataset(config: SegmentConfig, task: _ActorTask, shards: list[int], actors: int) -> ray.data.Dataset:
    quiet_data()
    rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    return rows.map(
        _ShardActor,
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor or None,
    )


def _watch(plan: Plan, shards: list[int], board: Any, dataset: ray.data.Dataset) -> None:
    before = plan.manifest.num_rows - sum(plan.shard_slice(shard).num_rows for shard in shards)
    line = ProgressLine(plan.manifest.num_rows, before)
    counts, changed, received = Counts(), time.monotonic(), 0

    def receipts(put: Callable[[dict[str, Any]], None]) -> None:
        for receipt in dataset.iter_rows():
            put(receipt)

    for receipt in in_background(receipts, _POLL_SECONDS):
        received += receipt is not None
        latest = _read(board, counts)
        if latest != counts or receipt is not None:
            counts, changed = latest, time.monotonic()
        line.show(counts)
        if time.monotonic() - changed > 60 * plan.config.no_progress_minutes:
            raise NoProgress(
                f"no image and no shard was finished in {plan.config.no_progress_minutes:g} minutes; "
                f"{len(shards) - received} of {len(shards)} shards are still awaited. Look at the cluster with "
                "`ray status` (lost nodes, actors that cannot start), then submit the same command again"
            )
    line.show(_read(board, counts), final=True)


def _read(board: Any, last: Counts) -> Counts:
    """The board's counts; the last ones if it does not answer, for progress must never end a run."""
    try:
        counts: Counts = ray.get(board.counts.remote(), timeout=5)
    except ray.exceptions.RayError:
        return last
    return counts


def _explained(error: Exception) -> PipelineError:
    """The error that an actor raised, out of Ray's wrappings; or that Ray itself gave up."""
    known = known_cause(error)
    if known is None:
        logger.error("the run ended early", exc_info=error)
    return known or IncompleteRun(
        f"the run ended early: {last_line(error)}. All finished shards are kept: submit the same command again"
    )
