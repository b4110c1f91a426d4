"""Execution of a run in Ray Data: shards are rows of a dataset, actors turn them into parts, the driver watches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ray
import ray.data

from model.kernels.host_memory import ALLOCATOR_ENVIRONMENT
from pipeline.concurrency import StallDetector, iterate_in_background
from pipeline.errors import ConfigError, IncompleteRun, PipelineError, error_summary, known_cause
from pipeline.ray_backend.cluster import configure_ray_data, count_actor_slots, describe_cluster, memory_share
from pipeline.ray_backend.shard_actor import ActorTask, ShardActor, start_ledger_actor
from pipeline.segmentation.config import Concurrency, SegmentConfig
from pipeline.segmentation.progress import Counts, ProgressLine
from pipeline.segmentation.runs.plan import Plan

__all__ = ["check_resources", "run_shards"]

logger = logging.getLogger(__name__)
# Longest interval between two readings of the ledger.
_POLL_SECONDS = 1.0
# Largest number of blocks of the dataset: the greater of a constant and a number per actor.
_BLOCKS = 1000
_BLOCKS_PER_ACTOR = 16


def check_resources(config: SegmentConfig) -> int:
    """Return the number of actors to start.

    Raises:
        ConfigError: If the cluster cannot hold them; Ray would wait forever without a message.
    """
    most = count_actor_slots(config.cpus_per_actor, config.gpus_per_actor)
    wanted = config.actors or max(1, most)
    if wanted > most:
        raise ConfigError(
            f"{wanted} actors of {config.cpus_per_actor:g} CPUs and {config.gpus_per_actor:g} GPUs do not fit "
            f"{describe_cluster()}: at most {most} do; lower --actors, --cpus-per-actor or --gpus-per-actor, or add "
            "nodes"
        )
    return wanted


def run_shards(plan: Plan, shards: list[int], actor: type[ShardActor] = ShardActor) -> None:
    """Write the parts of `shards` with Ray actors, and print the progress on standard error.

    Args:
        plan: Plan of the run, which has claimed its output.
        shards: Numbers of the shards without a part.
        actor: Class of the actors.

    Raises:
        IncompleteRun: If nothing is finished for `no_progress_minutes`, or Ray gives up.
        PipelineError: If an actor raised it, such as a storage error.
    """
    actors = min(check_resources(plan.config), len(shards))
    board = start_ledger_actor(plan.config)
    room = min(plan.config.transform_memory * 2**30, memory_share(plan.config.cpus_per_actor) / 2)
    task = ActorTask(plan.config, plan.ingredients["checkpoint"], plan.identity, board, int(room))
    dataset = _dataset(actor, task, shards, actors)
    try:
        _watch(plan, shards, board, dataset)
    except PipelineError:
        raise
    except Exception as error:
        raise _explained(error) from error


def _dataset(actor: type[ShardActor], task: ActorTask, shards: list[int], actors: int) -> ray.data.Dataset:
    """Return the lazy dataset whose rows are the receipts of the shards."""
    configure_ray_data()
    # Ray retries whole blocks, so each block holds one shard. Above the limit, blocks hold more, because the driver has
    # to keep track of every block.
    blocks = min(len(shards), max(_BLOCKS, _BLOCKS_PER_ACTOR * actors))
    in_flight = Concurrency.of(task.config, on_gpu=task.config.gpus_per_actor > 0).shards
    rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=blocks)
    return rows.map(
        actor,
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(
            size=actors,
            # Several shards at once: an actor need not wait for Ray to deliver the next one.
            max_concurrent_calls_per_actor=in_flight,
            max_tasks_in_flight_per_actor=in_flight,
            enable_true_multi_threading=True,
        ),
        num_cpus=task.config.cpus_per_actor,
        num_gpus=task.config.gpus_per_actor or None,
        # In the environment of the process, not set by the actor: the allocator reads it before Ray starts a thread.
        runtime_env={"env_vars": ALLOCATOR_ENVIRONMENT},
    )


def _watch(plan: Plan, shards: list[int], board: Any, dataset: ray.data.Dataset) -> None:
    """Execute the dataset, and print the progress until all receipts have arrived.

    Raises:
        NoProgress: If nothing is finished for `no_progress_minutes`.
    """
    before = plan.manifest.num_rows - sum(plan.shard_slice(shard).num_rows for shard in shards)
    line = ProgressLine(plan.manifest.num_rows, before)
    stall = StallDetector(plan.config.no_progress_minutes, "no image and no shard was finished")
    counts = Counts()
    received = 0

    def receipts(put: Callable[[dict[str, Any]], None]) -> None:
        for receipt in dataset.iter_rows():
            put(receipt)

    # Reading receipts blocks, so a background thread does it while this thread checks for a stall.
    for receipt in iterate_in_background(receipts, _POLL_SECONDS):
        received += receipt is not None
        # Any change of the counts is progress, heartbeats from within one slow image included.
        latest = _read(board, counts)
        alive = latest != counts or receipt is not None
        counts = latest
        line.show(counts)
        stall.check(alive, f"{len(shards) - received} of {len(shards)} shards are still awaited")
    line.show(_read(board, counts), final=True)


def _read(board: Any, last: Counts) -> Counts:
    """Return the ledger's counts, or the `last` ones if it does not answer: the display must never end a run."""
    try:
        board.look_at_nodes.remote()
        counts: Counts = ray.get(board.counts.remote(), timeout=5)
    except ray.exceptions.RayError:
        return last
    return counts


def _explained(error: Exception) -> PipelineError:
    """Return the error that an actor raised, unwrapped from Ray's errors; IncompleteRun if Ray itself gave up."""
    known = known_cause(error)
    if known is None:
        logger.error("the run ended early", exc_info=error)
    return known or IncompleteRun(
        f"the run ended early: {error_summary(error)}. All finished shards are kept: submit the same command again"
    )
