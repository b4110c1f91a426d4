"""The training loop of one stage: plain torch, the same on one worker or many, resumable at any iteration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.loss import summed_loss, valid_weight
from model.network import DilatedNetwork
from pipeline.errors import PipelineError
from pipeline.training.recipe_schema import STAGES, Recipe, StageConfig, StageName
from pipeline.training.samples import Sample
from pipeline.training.schedule import rate, set_rate
from pipeline.training.stages import stage_forward, trainable
from pipeline.training.world import World

__all__ = ["StepResult", "run_steps"]

# Batches prepared ahead of the network.
_AHEAD = 2


@dataclass(frozen=True)
class StepResult:
    """One optimizer step.

    Attributes:
        iteration: from 0.
        loss: mean over the valid cells of the whole batch, before the step.
        rate: learning rate of weights.
        seconds: of the step, waiting for data included.
        waited: seconds of those spent waiting for data.
    """

    iteration: int
    loss: float
    rate: float
    seconds: float
    waited: float


def run_steps(
    network: DilatedNetwork,
    stage: StageName,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    sample: Callable[[int, int], Sample],
    first: int,
    world: World,
    weights: Tensor | None = None,
) -> Iterator[StepResult]:
    """Runs the steps of a stage from iteration `first` to its end, yielding after each.

    Args:
        network: changed in place.
        stage: decides what is computed and what learns.
        recipe: of the run.
        optimizer: over the stage's trainable parameters.
        sample: (iteration, position in the global batch) → sample; called from other threads.
        first: iteration to begin with.
        world: the other workers; the positions of a batch are dealt out among all.
        weights: (C,) of the classes in the loss.

    Raises:
        PipelineError: if the loss is not finite; the message names the iteration and this worker's images.
    """
    config = recipe.stage(stage)
    positions = world.share(config.batch)
    with ThreadPoolExecutor(2, "samples") as pool:
        ahead = {
            iteration: [pool.submit(sample, iteration, position) for position in positions]
            for iteration in range(first, min(first + _AHEAD, config.iterations))
        }
        for iteration in range(first, config.iterations):
            started = time.perf_counter()
            if iteration + _AHEAD < config.iterations:
                later = iteration + _AHEAD
                ahead[later] = [pool.submit(sample, later, position) for position in positions]
            samples = [future.result() for future in ahead.pop(iteration)]
            waited = time.perf_counter() - started
            set_rate(optimizer, rate(config, iteration))
            loss = _step(network, stage, recipe, optimizer, samples, iteration, world, weights)
            yield StepResult(iteration, loss, rate(config, iteration), time.perf_counter() - started, waited)


def _step(
    network: DilatedNetwork,
    stage: StageName,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    samples: Sequence[Sample],
    iteration: int,
    world: World,
    weights: Tensor | None,
) -> float:
    # Dropout is the only randomness left here; tied to the place in the run it needs no state to resume.
    place = (recipe.seed, STAGES.index(stage), iteration, world.rank)
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)
    ignore = network.spec.ignore_label
    valid = world.sum(sum((valid_weight(s.target, ignore, weights) for s in samples), torch.zeros(1)))
    divisor = torch.where(valid > 0, valid, 1.0)
    total = torch.zeros(1, device=world.device)
    optimizer.zero_grad(set_to_none=True)
    for batch in _micro_batches(samples, recipe.stage(stage)):
        loss = _summed(network, stage, recipe, batch, world, weights)
        # Divided by the cells of all workers: the mean of per-worker means would weigh cells unevenly.
        (loss / divisor).sum().backward()
        total += loss.detach()
    mean = float(world.sum(total) / divisor)
    if not torch.isfinite(torch.tensor(mean)):
        images = ", ".join(sample.uri for sample in samples)
        raise PipelineError(
            f"the loss of stage {stage} is {mean} at iteration {iteration} (rank {world.rank}, images {images}): "
            "lower --{stage}.learning-rate, or look at these images".replace("{stage}", stage.replace("_", "-"))
        )
    world.sum_gradients(parameter for _, parameter in trainable(network, stage, recipe))
    optimizer.step()
    return mean


def _micro_batches(samples: Sequence[Sample], config: StageConfig) -> Iterator[Sequence[Sample]]:
    """Runs of samples of one shape, no longer than the configuration allows."""
    batch: list[Sample] = []
    for sample in samples:
        if batch and (len(batch) == config.micro_batch or batch[0].inputs.shape != sample.inputs.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _summed(
    network: DilatedNetwork,
    stage: StageName,
    recipe: Recipe,
    batch: Sequence[Sample],
    world: World,
    weights: Tensor | None,
) -> Tensor:
    inputs = torch.stack([sample.inputs for sample in batch]).to(world.device)
    target = torch.stack([sample.target for sample in batch]).to(world.device)
    cuda = world.device.type == "cuda"
    if not recipe.frozen_convolutions:
        # Early layers, with few channels and many pixels, are up to twice as fast so, on CPUs and GPUs alike.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(world.device.type, torch.bfloat16, enabled=cuda):
        scores = stage_forward(network, stage, recipe, inputs)
    on_device = None if weights is None else weights.to(world.device)
    return summed_loss(scores, target, network.spec.ignore_label, on_device)[0]
