"""Training throughput of the whole job on Ray and of the bare step on tensors in memory; memory of a full-width crop.

    python -m benchmarks.training [--recipe street_scenes] [--data URI] [--iterations 60] [--cpus 1] [--memory]

For each stage: `bare` repeats one step on one batch in memory; `loop` adds samples that threads draw, decode and crop.
Both alternate in one process; the figures are medians of the rounds. `job` is the same stage under Ray Train, timed
between its first and its last step by the event file. The benchmark writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.scenes import draw_scenes
from benchmarks.steps import WARM_UP, alternate
from pipeline.data.storage import Storage
from pipeline.ray_backend.training_group import check_workers, run_phase
from pipeline.training.config import TrainConfig
from pipeline.training.preparation.dry_run import dry_run
from pipeline.training.recipes.registry import recipe
from pipeline.training.recipes.schema import STAGES, NetworkConfig, Recipe, StageConfig
from pipeline.training.runs.run import train

RESULTS = Path(__file__).parent / "results" / "training.json"


def main() -> None:
    """Run the benchmark, and write training.json or training_memory.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="street_scenes")
    parser.add_argument("--data", help="default: drawn scenes")
    parser.add_argument("--iterations", type=int, default=60, help="of each stage of the job")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=1, help="of the worker, and its torch threads")
    parser.add_argument("--memory", action="store_true", help="only a full-width crop of 628 pixels: time and memory")
    options = parser.parse_args()
    torch.set_num_threads(options.cpus)
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        data = options.data or draw_scenes(folder, train=24, val=2)
        content = _memory(data, folder) if options.memory else _throughput(options, data, folder)
    content |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    target = RESULTS.with_stem("training_memory") if options.memory else RESULTS
    target.write_text(json.dumps(content, indent=1) + "\n")


def _throughput(options: argparse.Namespace, data: str, folder: str) -> dict[str, Any]:
    """Return images per second of each stage: bare step, loop and job."""
    chosen = _shortened(recipe(options.recipe), options.iterations)
    config = TrainConfig(data=(data,), output=f"{folder}/run", recipe=chosen, cpus_per_worker=options.cpus)
    of_job = _job(config)
    rows: dict[str, Any] = {}
    print(f"{'stage':<12}{'bare':>9}{'loop':>9}{'job':>9}   images/s{'loop/bare':>12}{'job/bare':>10}{'stall':>8}")
    for stage in chosen.stages:
        bare, loop, stall = alternate(config, stage, options.rounds)
        job = of_job[stage]
        rows[stage] = {"bare": bare, "loop": loop, "job": job, "stall": stall}
        ratios = f"{loop / bare:>23.3f}{job / bare:>10.3f}{stall:>8.3f}"
        print(f"{stage:<12}{bare:>9.2f}{loop:>9.2f}{job:>9.2f}{ratios}", flush=True)
    return {"recipe": options.recipe, "iterations": options.iterations, "cpus": options.cpus, "images_per_second": rows}


def _shortened(chosen: Recipe, iterations: int) -> Recipe:
    """Return the recipe with `iterations` steps in each stage, without checkpoints or validation in between."""
    stages: dict[str, Any] = {
        name: chosen.stage(name).model_copy(update={"iterations": iterations}) for name in chosen.stages
    }
    return chosen.model_copy(update={**stages, "checkpoint_every": 10**6, "validate_every": 10**6})


def _job(config: TrainConfig) -> dict[str, float]:
    """Return images per second of each stage under Ray Train, from the wall times of its steps."""
    ray.init(num_cpus=os.cpu_count(), logging_level="warning", log_to_driver=False)
    train(config, check_workers, run_phase)
    ray.shutdown()
    events = EventAccumulator(f"{config.output}/tensorboard")
    events.Reload()
    times = [event.wall_time for event in events.Scalars("train/loss")]
    rates: dict[str, float] = {}
    first = 0
    for stage in config.recipe.stages:
        last = first + config.recipe.stage(stage).iterations
        steps = times[first + WARM_UP : last]
        rates[stage] = config.recipe.stage(stage).batch * (len(steps) - 1) / (steps[-1] - steps[0])
        first = last
    return rates


def _memory(data: str, folder: str) -> dict[str, Any]:
    """Measure one full-width crop of 628 pixels in a dry run, with and without activation checkpointing."""
    none: dict[str, Any] = dict.fromkeys(STAGES, StageConfig())
    front_end = StageConfig(iterations=20_000, batch=1, crop=628, momentum=0.99, dropout=0.5)
    wide = recipe("street_scenes").model_copy(update={**none, "network": NetworkConfig(), "front_end": front_end})
    lines: dict[str, Any] = {}
    for name, recompute in (("kept", False), ("recomputed", True)):
        config = TrainConfig(data=(data,), output=f"{folder}/{name}", recipe=wide, recompute=recompute)
        lines[name] = list(dry_run(config, Storage()))[-1]
        print(f"{name}: {lines[name]}", flush=True)
    return {"full_width_crop": lines}


if __name__ == "__main__":
    main()
