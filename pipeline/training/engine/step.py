"""Optimizer step over a batch that is spread over all workers, and the loop over the steps of a stage."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from model.networks.loss import summed_loss, valid_weight
from model.networks.network import Network
from model.precision import front_end_precision
from model.prediction.streams import to_device
from model.prediction.upsampling import upsample_scores
from pipeline.errors import PipelineError
from pipeline.training.engine.stages import dropouts, rate, set_rate, stage_forward, trainable
from pipeline.training.engine.world import World
from pipeline.training.recipes.schema import Recipe, StageName
from pipeline.training.samples.crops import Sample

__all__ = ["Batch", "Step", "StepResult", "run_steps"]


@dataclass(frozen=True)
class Batch:
    """Micro-batch: samples of one shape that pass through the network together.

    Attributes:
        inputs: Stacked inputs on the worker's device: images (N, 3, H, W) or maps (N, F, rows, columns).
        target: Stacked labels (N, h, w), uint8, on the same device.
        samples: Samples from which the tensors were stacked.
    """

    inputs: Tensor
    target: Tensor
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Step:
    """Optimizer step of one stage: forward, backward, sum of gradients over all workers, update.

    Attributes:
        network: Network in training; every step changes it in place.
        stage: Name of the stage, which decides the forward pass and the trainable parameters.
        recipe: Recipe of the run.
        optimizer: Optimizer over the stage's trainable parameters.
        world: Communication with the other workers; all workers take every step together.
        weights: Class weights (C,) of the loss; None for equal weights.
        should_regroup: Callback that returns whether this worker's machine is about to leave.
        forward: Function from inputs to score maps, such as a compiled `stage_forward`; None: `stage_forward`.
    """

    network: Network
    stage: StageName
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    world: World
    weights: Tensor | None = None
    should_regroup: Callable[[], bool] = lambda: False
    forward: Callable[[Tensor], Tensor] | None = None

    def batches(self, samples: Sequence[Sample]) -> list[Batch]:
        """Return this worker's samples as micro-batches on its device; safe to call from another thread, in advance."""
        return [self._batch(run) for run in self._runs(samples)]

    def __call__(self, batches: Sequence[Batch], iteration: int) -> tuple[float, bool]:
        """Take one optimizer step together with all workers.

        Args:
            batches: Micro-batches of this worker's share of the whole batch; may be empty.
            iteration: Number of the step in its stage, counted from 0.

        Returns:
            The mean loss over the valid cells of the whole batch before the step, and whether any worker must regroup.

        Raises:
            PipelineError: If the loss is not finite. The message names iteration, ranks and images; no parameter has
                changed.
        """
        set_rate(self.optimizer, rate(self.recipe.stage(self.stage), iteration))
        # Step 1: count the valid cells of the whole batch, each with the weight of its class; shape (1,).
        own = sum((self._weight(sample) for batch in batches for sample in batch.samples), torch.zeros(1))
        valid = self.world.sum(own)
        # The divisor covers all workers, because a mean of per-worker means would weight cells unevenly.
        # A batch without any valid cell gets the divisor 1, hence loss 0 instead of NaN.
        divisor = torch.where(valid > 0, valid, 1.0)
        # Step 2: accumulate gradients over the micro-batches. cuDNN's kernel search pays off only for crops, which have
        # one size; whole images vary in shape.
        self.optimizer.zero_grad(set_to_none=True)
        device = self.world.device
        weights = None if self.weights is None else self.weights.to(device)
        losses = []
        with torch.backends.cudnn.flags(enabled=True, benchmark=self.recipe.stage(self.stage).crop is not None):
            for batch in batches:
                # Dropout is the only random step. A generator per sample makes it resumable without saved state.
                generators = [_generator(sample.seed, device) for sample in batch.samples]
                for layer in dropouts(self.network):
                    layer.generators = generators
                with front_end_precision(device):
                    scores = self._scores(batch)
                loss = summed_loss(scores, batch.target, self.network.spec.ignore_label, weights)[0]
                (loss / divisor).sum().backward()
                losses.append(loss.detach())
        own_loss = torch.stack([*losses, torch.zeros((), device=device)]).sum()
        regroup = torch.tensor(float(self.should_regroup()), device=device)
        # Step 3: sum the loss over all workers. The flag travels in the same message, at no extra cost.
        total, regrouping = self.world.sum(torch.stack([own_loss, regroup])).tolist()
        mean = total / float(divisor)
        if not math.isfinite(mean):
            pairs = zip(losses, batches, strict=True)
            self._refuse(mean, iteration, [batch.samples for loss, batch in pairs if not torch.isfinite(loss)])
        # Step 4: sum the gradients, which are divided already, and update the weights identically on every worker.
        self.world.sum_gradients(parameter for _, parameter in trainable(self.network, self.stage, self.recipe))
        self.optimizer.step()
        return mean, regrouping > 0

    def _weight(self, sample: Sample) -> Tensor:
        """Return the total class weight of a sample's valid cells; their number if classes have equal weights."""
        return valid_weight(sample.target, self.network.spec.ignore_label, self.weights)

    def _runs(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        """Yield consecutive samples of one shape, at most `micro_batch` at a time."""
        most = self.recipe.stage(self.stage).micro_batch
        run = list[Sample]()
        for sample in samples:
            if run and (len(run) == most or run[0].inputs.shape != sample.inputs.shape):
                yield run
                run = []
            run.append(sample)
        if run:
            yield run

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        device = self.world.device
        inputs = torch.stack([sample.inputs for sample in samples])
        if self.recipe.stage_input(self.stage) == "images":
            # Channels last makes the early layers (few channels, many pixels) up to twice as fast on CPUs and GPUs.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        target = torch.stack([sample.target for sample in samples])
        return Batch(to_device(inputs, device), to_device(target, device), samples)

    def _scores(self, batch: Batch) -> Tensor:
        """Return scores (N, C, h, w) at the pixels of the target: those under cells, or all of them."""
        forward = self.forward or (lambda maps: stage_forward(self.network, self.stage, self.recipe, maps))
        scores = forward(batch.inputs)
        height, width = batch.target.shape[1:]
        if self.network.spec.upsampling.interpolates == "scores":
            return upsample_scores(scores, height, width, self.network.spec.upsampling)
        # The last cell of a padded crop may lie beyond its last pixel.
        return scores[:, :, :height, :width]

    def _refuse(self, mean: float, iteration: int, wrong: Sequence[Sequence[Sample]]) -> None:
        """Raise PipelineError with the images of all workers whose loss is not finite."""
        # A collective call: every worker gets here, because all see the same summed loss.
        own = [sample.uri for batch in wrong for sample in batch]
        everyone = enumerate(self.world.gather(own))
        images = "; ".join(f"rank {rank}: {', '.join(uris)}" for rank, uris in everyone if uris) or "no single image's"
        raise PipelineError(
            f"the loss of stage {self.stage} is {mean} at iteration {iteration} ({images}): lower "
            f"--{self.stage.replace('_', '-')}.learning-rate, or look at these images"
        )


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


# Number of batches that are prepared while the network processes one.
_AHEAD = 2


@dataclass(frozen=True)
class StepResult:
    """Result of one optimizer step.

    Attributes:
        iteration: Number of the step in its stage, counted from 0.
        loss: Mean loss over the valid cells of the whole batch, before the step.
        rate: Learning rate of weights.
        seconds: Duration of the step in seconds, including the wait for data.
        waited: Part of `seconds` spent waiting for data.
        should_regroup: Whether the workers must regroup, because a machine is about to leave or another one has joined.
    """

    iteration: int
    loss: float
    rate: float
    seconds: float
    waited: float
    should_regroup: bool


def run_steps(step: Step, sample: Callable[[int, int], Sample], first: int, loaders: int = 2) -> Iterator[StepResult]:
    """Run the steps of a stage from iteration `first` to its end, and yield the result of each.

    Args:
        step: Optimizer step of the stage.
        sample: Function from (iteration, position in the global batch) to a sample; called from other threads.
        first: Iteration of the first step.
        loaders: Number of threads that prepare samples.

    Raises:
        PipelineError: If the loss is not finite.
    """
    config = step.recipe.stage(step.stage)
    positions = step.world.share(config.batch)
    with ThreadPoolExecutor(loaders, "samples") as pool:
        ahead: deque[Future[list[Batch]]] = deque()

        def prepare(iteration: int) -> None:
            if iteration < config.iterations:
                parts = [pool.submit(sample, iteration, position) for position in positions]
                # No deadlock: the pool starts tasks in order, so the parts are done or running when this task waits.
                ahead.append(pool.submit(lambda: step.batches([part.result() for part in parts])))

        # Fill the queue before the first step; each step then adds one batch.
        for iteration in range(first, first + _AHEAD):
            prepare(iteration)
        try:
            for iteration in range(first, config.iterations):
                started = time.perf_counter()
                prepare(iteration + _AHEAD)
                batches = ahead.popleft().result()
                waited = time.perf_counter() - started
                loss, should_regroup = step(batches, iteration)
                seconds = time.perf_counter() - started
                yield StepResult(iteration, loss, rate(config, iteration), seconds, waited, should_regroup)
        finally:
            # After an error, or at an early end, the batches in preparation are no longer needed.
            pool.shutdown(wait=False, cancel_futures=True)
