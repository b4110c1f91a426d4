"""Ray Train side of the driver: starts the workers, watches their progress, and reports lost ones."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow.fs
import ray
import ray.train
import ray.train.torch
import torch

from pipeline.concurrency import StallDetector, iterate_in_background
from pipeline.data.storage import Storage, join
from pipeline.errors import (
    ConfigError,
    IncompleteRun,
    NoProgress,
    PipelineError,
    WorkerPreempted,
    error_summary,
    known_cause,
)
from pipeline.ray_backend.cluster import count_actor_slots, describe_cluster
from pipeline.ray_backend.feature_map_pool import compute_maps
from pipeline.ray_backend.training_worker import ProgressActor, TorchConfig, train_as_worker
from pipeline.training.config import TrainConfig
from pipeline.training.preparation.dry_run import dry_run
from pipeline.training.runs.checkpoints import Phase
from pipeline.training.runs.lease import Lease

__all__ = ["check_workers", "run_dry", "run_phase"]

# Seconds after which a silent peer counts as dead; the default of half an hour would look like a hang.
# The value exceeds the longest request to storage, for which a sample may wait.
_PEER_TIMEOUT = 120
# Failed starts of a group after which Ray's controller gives up.
_MAX_STARTS = 10
# Seconds between two polls of the progress of the workers, and between two polls of the room in the cluster.
_POLL_SECONDS = 0.5
_LOOK_SECONDS = 10.0
_SETTINGS = {
    # Seconds after which a worker that does not answer Ray's controller counts as lost; the default is ten minutes.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
    # Seconds between two checks whether a machine of the workers is to be taken away.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
}


def check_workers(config: TrainConfig) -> None:
    """Refuse workers that do not fit the cluster, for which Ray would wait forever.

    Raises:
        ConfigError: If the workers do not fit; the message names the resources of the cluster.
    """
    # Ray Train's controller needs no CPU; the workers need all of their resources at once.
    fit = count_actor_slots(config.cpus_per_worker, config.gpus_per_worker)
    needed = config.min_workers or config.workers
    if fit < needed:
        raise ConfigError(
            f"{needed} workers of {config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs do not "
            f"fit {describe_cluster()}, whose nodes hold {fit}: lower --workers, --cpus-per-worker or "
            "--gpus-per-worker, or add nodes"
        )


def run_phase(config: TrainConfig, phase: Phase, lease: Lease) -> None:
    """Compute the maps that a phase needs, then train its stages, with progress on standard output.

    Args:
        config: Configuration of the run.
        phase: Maps and stages of the phase.
        lease: Lease of this driver, whose number the workers check before they write.

    Raises:
        PipelineError: If a worker raised it. It is `IncompleteRun` if a worker is lost or there is no progress.
    """
    for kind in phase.feature_maps:
        compute_maps(config, kind)
    size, board = _await_places(config), ProgressActor.remote()  # type: ignore[attr-defined]
    trainer = _trainer(config, phase, lease.number, board, size)
    stall = StallDetector(config.no_progress_minutes, "no step was taken and no image validated")
    looked = time.monotonic()
    try:
        for _ in iterate_in_background(lambda put: trainer.fit(), _POLL_SECONDS):
            stall.check(_show(board))
            if size < config.workers and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if count_actor_slots(config.cpus_per_worker, config.gpus_per_worker) > size:
                    # Ray's own elasticity would end the group at once and lose the work since the last checkpoint.
                    board.regroup.remote()
    except PipelineError:
        raise
    except Exception as error:
        raise _explained(error) from error
    finally:
        # Print the lines that arrived after the last poll.
        _show(board)


def _await_places(config: TrainConfig) -> int:
    """Wait until the smallest group of workers fits, and return the number of workers to start.

    Raises:
        NoProgress: If the cluster has no room for `no_progress_minutes`.
    """
    least = config.min_workers or config.workers
    started = time.monotonic()
    said = 0.0
    while (fit := count_actor_slots(config.cpus_per_worker, config.gpus_per_worker)) < least:
        if time.monotonic() - started > 60 * config.no_progress_minutes:
            raise NoProgress(
                f"{describe_cluster()} has had room for {fit} of {least} workers for {config.no_progress_minutes:g} "
                "minutes: add nodes, or lower --min-workers, then submit the same command again"
            )
        if time.monotonic() - said > _LOOK_SECONDS:
            said = time.monotonic()
            print(f"waiting for room for {least} workers: {describe_cluster()} has it for {fit}", flush=True)
        time.sleep(_POLL_SECONDS)
    return min(fit, config.workers)


def run_dry(config: TrainConfig) -> None:
    """Run the dry run as a task with the resources of a worker, and print its findings.

    Raises:
        PipelineError: If the dry run raised it, or `IncompleteRun` if Ray lost the task.
    """

    @ray.remote(num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker, max_retries=0)
    def look() -> Iterator[str]:
        torch.set_num_threads(max(1, math.floor(config.cpus_per_worker)))
        yield from dry_run(config, Storage(), torch.device("cuda" if config.gpus_per_worker else "cpu"))

    try:
        for line in look.remote():
            print(ray.get(line), flush=True)
    except ray.exceptions.RayError as error:
        raise _explained(error) from error
    print(f"page and pictures in {join(config.output, 'dry-run')}/index.html")


def _show(board: Any) -> bool:
    """Print the lines that have arrived, and return whether there was any heartbeat."""
    # A failed poll is no reason to fail the run: the next one may succeed.
    with suppress(ray.exceptions.RayError):
        lines, active = ray.get(board.take.remote(), timeout=10)
        for line in lines:
            print(line, flush=True)
        return bool(active)
    return False


def _trainer(config: TrainConfig, phase: Phase, driver: int, board: Any, size: int) -> ray.train.torch.TorchTrainer:
    """Return the Ray trainer of a phase with `size` workers."""
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    storage_path, filesystem = _ray_storage(config.output)
    return ray.train.torch.TorchTrainer(
        train_as_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "stages": phase.stages,
            "driver": driver,
            "board": board,
        },
        torch_config=TorchConfig(timeout_s=_PEER_TIMEOUT),
        scaling_config=ray.train.ScalingConfig(
            num_workers=size, use_gpu=config.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=storage_path,
            storage_filesystem=filesystem,
            # The driver retries lost workers itself. A start that takes over a minute counts as a controller failure;
            # by default, Ray would repeat such starts forever.
            failure_config=ray.train.FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=_MAX_STARTS
            ),
        ),
    )


def _ray_storage(output: str) -> tuple[str, Any]:
    """Return path and filesystem for Ray's own small records, which lie in the output beside our checkpoints."""
    filesystem, path = Storage().filesystem(join(output, "ray-train"))
    return path, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))


def _explained(error: Exception) -> PipelineError:
    """Return the error that a worker raised, unwrapped from Ray's errors, or `IncompleteRun` if Ray gave up."""
    if isinstance(error, ray.train.PreemptionError):
        return WorkerPreempted("a worker's machine was taken away")
    return known_cause(error) or IncompleteRun(f"training ended early: {error_summary(error)}")
