"""Ray Data side of the map computation: actors compute the maps of whole images on which a phase trains."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.data
import torch

from pipeline.concurrency import StallDetector, iterate_in_background
from pipeline.data.storage import Storage
from pipeline.errors import IncompleteRun, PipelineError, error_summary, known_cause
from pipeline.ray_backend.cluster import configure_ray_data
from pipeline.ray_backend.training_worker import ProgressActor
from pipeline.training.config import TrainConfig
from pipeline.training.feature_maps import FeaturePrecompute, Task
from pipeline.training.recipes.schema import StageInput

__all__ = ["compute_maps"]

# Seconds between two progress lines, and between two checks for progress.
_LINE_SECONDS = 10.0
_POLL_SECONDS = 1.0
# Maps per row: few, so that a lost actor loses only seconds of work, and the last rows keep all actors busy.
_CHUNK = 4


class _MapActor:
    """Actor that computes maps; it builds the network itself, so that a restarted actor builds it again."""

    def __init__(self, settings: dict[str, Any], kind: StageInput, board: Any) -> None:
        config = TrainConfig(**settings)
        self._board = board
        torch.set_num_threads(max(1, math.floor(config.cpus_per_worker)))
        self._work = FeaturePrecompute(
            config, kind, Storage(), torch.device("cuda" if config.gpus_per_worker else "cpu")
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        tasks: list[Task] = [(split, index, mirror) for split, index, mirror in json.loads(row["tasks"])]
        self._work.compute(tasks, lambda: self._board.heartbeat.remote())
        return {"maps": len(tasks)}


def compute_maps(config: TrainConfig, kind: StageInput) -> None:
    """Compute the maps of one kind that are missing, with progress on standard output.

    Raises:
        PipelineError: If an actor raised it, or `NoProgress` if no map was finished for `no_progress_minutes`.
    """
    tasks = FeaturePrecompute(config, kind, Storage()).missing()
    if not tasks:
        return
    board: Any = ProgressActor.remote()  # type: ignore[attr-defined]
    dataset = _dataset(config, kind, tasks, board)
    started = time.monotonic()
    done = 0
    stall = StallDetector(config.no_progress_minutes, "no map was finished")
    printed = started

    def counts(put: Callable[[int], None]) -> None:
        for row in dataset.iter_rows():
            put(row["maps"])

    try:
        for count in iterate_in_background(counts, _POLL_SECONDS):
            now = time.monotonic()
            done += count or 0
            if done and (now - printed >= _LINE_SECONDS or done == len(tasks)):
                printed = now
                print(_line(kind, done, len(tasks), now - started), flush=True)
            # Single maps count as progress as well, because a row of large ones may exceed the time limit.
            stall.check(bool(count) or _any_map(board))
    except PipelineError:
        raise
    except Exception as error:
        raise known_cause(error) or IncompleteRun(f"{kind} maps: {error_summary(error)}") from error


def _any_map(board: Any) -> bool:
    """Return whether a map was finished since the last call; a row of large maps may take long by itself."""
    try:
        return bool(ray.get(board.take.remote(), timeout=10)[1])
    except ray.exceptions.RayError:
        return False


def _line(kind: StageInput, done: int, total: int, seconds: float) -> str:
    return (
        f"{kind} maps {done}/{total}  {done / seconds:.2f} maps/s  {seconds / done * (total - done) / 60:.1f} min left"
    )


def _dataset(config: TrainConfig, kind: StageInput, tasks: list[Task], board: Any) -> ray.data.Dataset:
    """Return the lazy data set whose rows are small chunks of tasks, mapped by a pool of actors."""
    chunks = [tasks[first : first + _CHUNK] for first in range(0, len(tasks), _CHUNK)]
    configure_ray_data()
    # One block per row: Ray schedules blocks, so each chunk can go to any idle actor.
    rows = ray.data.from_items([{"tasks": json.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks))
    return rows.map(
        _MapActor,
        fn_constructor_args=(config.model_dump(mode="json"), kind, board),
        compute=ray.data.ActorPoolStrategy(size=min(config.workers, len(chunks))),
        num_cpus=config.cpus_per_worker,
        num_gpus=config.gpus_per_worker or None,
    )
