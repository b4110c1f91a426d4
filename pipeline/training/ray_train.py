"""The only module where training meets Ray: Ray Train starts the workers, watches them and starts them again."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow.fs
import ray
import ray.train
import ray.train.torch
import torch

from pipeline.cluster import describe_cluster, places
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, IncompleteRun, PipelineError, StorageError
from pipeline.training.config import TrainConfig
from pipeline.training.recipe_schema import Recipe
from pipeline.training.trainer import Trainer
from pipeline.training.world import World

__all__ = ["check_workers", "run_workers"]

logger = logging.getLogger(__name__)
# Seconds after which a silent peer counts as dead; the default of half an hour would be a hang.
_PEER_TIMEOUT = 120
_MAX_FAILURES = 3
_MAX_STARTS = 10
_POLL_SECONDS = 0.5


def check_workers(config: TrainConfig) -> None:
    """Refuses workers that the cluster cannot hold; Ray would wait for ever.

    Raises:
        ConfigError: saying what is there.
    """
    # Ray Train's own controller needs no CPU, the workers need all of theirs at once.
    fit = places(config.cpus_per_worker, config.gpus_per_worker)
    if fit < config.workers:
        raise ConfigError(
            f"{config.workers} workers of {config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs do not "
            f"fit {describe_cluster()}, whose nodes hold {fit}: lower --workers, --cpus-per-worker or "
            "--gpus-per-worker, or add nodes"
        )


def run_workers(config: TrainConfig) -> None:
    """Trains on the cluster; after a lost worker, training goes on from the newest checkpoint.

    Raises:
        PipelineError: what a worker raised, or `IncompleteRun` if workers are lost too often.
    """
    lines: Any = _Lines.remote()  # type: ignore[attr-defined]
    with _printing(lines):
        for failures in itertools.count(1):
            try:
                _trainer(config, lines).fit()
                return
            except Exception as error:
                reason = _unwrap(error)
                # Ray would try every error again; a wrong configuration stays wrong.
                if not isinstance(reason, IncompleteRun | StorageError) or failures > _MAX_FAILURES:
                    raise reason from error
                logger.warning("failure %d: %s", failures, reason)


def _trainer(config: TrainConfig, lines: Any) -> ray.train.torch.TorchTrainer:
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    storage_path, filesystem = _ray_storage(config.output)
    return ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "recipe": config.recipe.model_dump(mode="json"),
            "data": config.data,
            "output": config.output,
            "lines": lines,
            "threads": max(1, math.floor(config.cpus_per_worker)),
        },
        torch_config=ray.train.torch.TorchConfig(timeout_s=_PEER_TIMEOUT),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers, use_gpu=config.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=storage_path,
            storage_filesystem=filesystem,
            # Workers that cannot start within a minute count as one failure of the controller, for ever by default.
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=_MAX_STARTS),
        ),
    )


@ray.remote(num_cpus=0, max_restarts=-1)
class _Lines:
    """Carries lines of progress from rank 0 to the driver, which a worker's own output would reach garbled."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def _worker(config: dict[str, Any]) -> None:
    torch.set_num_threads(config["threads"])

    def say(line: str) -> None:
        config["lines"].put.remote(line)

    context = ray.train.get_context()
    size = context.get_world_size()
    patient = World.patient_group() if size > 1 else None
    world = World(context.get_world_rank(), size, ray.train.torch.get_device(), patient)
    trainer = Trainer(Recipe(**config["recipe"]), config["data"], config["output"], world, Storage(), say)
    trainer.run()


@contextmanager
def _printing(lines: Any) -> Iterator[None]:
    """Prints the worker's lines here, in the driver, until left."""
    done = threading.Event()

    def show() -> None:
        for line in ray.get(lines.take.remote(), timeout=10):
            print(line, flush=True)

    def follow() -> None:
        while not done.wait(_POLL_SECONDS):
            # Progress is worth no error: the next look may succeed.
            with suppress(ray.exceptions.RayError):
                show()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)
        with suppress(ray.exceptions.RayError):
            show()


def _ray_storage(output: str) -> tuple[str, Any]:
    """Where Ray keeps its own small records; the checkpoints are ours and lie beside them."""
    filesystem, path = Storage().filesystem(join(output, "ray-train"))
    return path, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))


def _unwrap(error: BaseException) -> PipelineError:
    """The error that a worker raised, out of Ray's wrappings."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), error]:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, PipelineError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    logger.error("training ended early", exc_info=error)
    last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return IncompleteRun(f"training ended early: {last}. Submit the same command again to go on")
