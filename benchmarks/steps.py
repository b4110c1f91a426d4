"""Speed of a stage's optimizer steps in this process, without Ray."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline.data.storage import Storage
from pipeline.training.config import TrainConfig
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.engine.stages import build_optimizer, set_modes, trainable
from pipeline.training.engine.step import Step, run_steps
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import map_caches
from pipeline.training.recipes.schema import StageName
from pipeline.training.samples.samplers import sampler
from pipeline.training.samples.sources import Sources

__all__ = ["WARM_UP", "alternate"]

WARM_UP = 3


def alternate(
    config: TrainConfig, stage: StageName, rounds: int, device: torch.device | None = None
) -> tuple[float, float, float]:
    """Return images per second of the bare step and of the loop, and the loop's share of waiting for data.

    As many threads prepare samples as the configuration gives a worker CPUs, but at least two.

    Args:
        config: Configuration of the training run.
        stage: Stage to measure.
        rounds: Number of rounds, in each of which step and loop are timed; the results are medians.
        device: Device of the network; None: the CPU.
    """
    step, sample = _prepared(config, stage, device or torch.device("cpu"))
    loaders = max(2, int(config.cpus_per_worker))
    batch = config.recipe.stage(stage).batch
    batches = step.batches([sample(0, position) for position in range(batch)])
    steps = 10
    short = config.recipe.model_copy(
        update={stage: config.recipe.stage(stage).model_copy(update={"iterations": steps + WARM_UP})}
    )
    looping = Step(step.network, stage, short, step.optimizer, step.world, step.weights)
    bare = []
    loop = []
    stall = []
    for _ in range(WARM_UP):
        step(batches, 0)
    for _ in range(rounds):
        bare.append(batch * steps / _timed(lambda: [step(batches, 0) for _ in range(steps)]))
        results = list(run_steps(looping, sample, 0, loaders))[WARM_UP:]
        seconds = sum(result.seconds for result in results)
        loop.append(batch * steps / seconds)
        stall.append(sum(result.waited for result in results) / seconds)
    return statistics.median(bare), statistics.median(loop), statistics.median(stall)


def _prepared(config: TrainConfig, stage: StageName, device: torch.device) -> tuple[Step, Callable[[int, int], Any]]:
    """Return a stage's step and sampler; feature maps that the stage starts from are computed first."""
    storage = Storage()
    chosen = config.recipe
    network, _ = initial_network(chosen, storage)
    network.to(device).to(memory_format=torch.channels_last)
    cache = None
    kind = chosen.stage_input(stage)
    if kind != "images":
        # Compute the maps with the initial weights: their values do not affect the speed.
        alone = TrainConfig(data=config.data, output=f"{config.output}-{stage}", recipe=chosen)
        cache = map_caches(alone, storage, network)[kind]
        sources = Sources(alone, storage)
        cache.fill(sources.of(stage), cache.missing(sources.of(stage), [False, True]))
    set_modes(network, stage, chosen)
    optimizer = build_optimizer(chosen.stage(stage), trainable(network, stage, chosen), network.parts)
    sample = sampler(chosen, stage, network.spec, Sources(config, storage).of(stage), cache)
    return Step(network, stage, chosen, optimizer, World(device=device)), sample


def _timed(work: Callable[[], Any]) -> float:
    """Return seconds of one call, including the GPU's work."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
