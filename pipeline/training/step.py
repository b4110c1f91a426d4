"""One optimizer step over a batch that may be spread over workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.loss import summed_loss, valid_weight
from model.network import DilatedNetwork
from model.streams import to_device
from model.upsampling import deconvolve
from pipeline.errors import PipelineError
from pipeline.training.recipe_schema import Recipe, StageName
from pipeline.training.samples import Sample
from pipeline.training.schedule import rate, set_rate
from pipeline.training.stages import stage_forward, trainable
from pipeline.training.world import World

__all__ = ["Batch", "Step"]


@dataclass(frozen=True)
class Batch:
    """Samples of one shape that go through the network together.

    Attributes:
        inputs: (N, …) of the samples, on the worker's device.
        target: (N, h, w) uint8, there too.
        samples: where they come from.
    """

    inputs: Tensor
    target: Tensor
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Step:
    """All that a step of one stage needs but its samples.

    Attributes:
        network: changed in place.
        stage: decides what is computed and what learns.
        recipe: of the run.
        optimizer: over the stage's trainable parameters.
        world: the other workers; all take every step together.
        weights: (C,) of the classes in the loss; None for equal ones.
        leaving: whether this worker's machine is about to be taken away.
        forward: from inputs to scores at stride 8, such as a compiled `stage_forward`; None for that itself.
    """

    network: DilatedNetwork
    stage: StageName
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    world: World
    weights: Tensor | None = None
    leaving: Callable[[], bool] = lambda: False
    forward: Callable[[Tensor], Tensor] | None = None

    def batches(self, samples: Sequence[Sample]) -> list[Batch]:
        """This worker's samples as it takes them, on its device; may be called from another thread, ahead of time."""
        return [self._batch(run) for run in self._runs(samples)]

    def __call__(self, batches: Sequence[Batch], iteration: int) -> tuple[float, bool]:
        """Takes the step.

        Args:
            batches: this worker's part of the whole batch; may be empty.
            iteration: from 0.

        Returns:
            The mean loss over the valid cells of the whole batch, before the step; whether any worker is leaving.

        Raises:
            PipelineError: if the loss is not finite, naming iteration, ranks and images; no parameter has moved then.
        """
        set_rate(self.optimizer, rate(self.recipe.stage(self.stage), iteration))
        own = sum((self._weight(sample) for batch in batches for sample in batch.samples), torch.zeros(1))
        valid = self.world.sum(own)
        # Divided by the cells of all workers: the mean of per-worker means would weigh cells unevenly.
        divisor = torch.where(valid > 0, valid, 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.backends.cudnn.flags(enabled=True, benchmark=self.recipe.stage(self.stage).crop is not None):
            losses = [self._backward(batch, divisor) for batch in batches]
        loss = torch.stack([*losses, torch.zeros((), device=self.world.device)]).sum()
        leaving = torch.tensor(float(self.leaving()), device=self.world.device)
        # One message for both: what a worker knows of its machine costs no time.
        total, left = self.world.sum(torch.stack([loss, leaving])).tolist()
        mean = total / float(divisor)
        if not math.isfinite(mean):
            pairs = zip(losses, batches, strict=True)
            self._refuse(mean, iteration, [batch.samples for loss, batch in pairs if not torch.isfinite(loss)])
        self.world.sum_gradients(parameter for _, parameter in trainable(self.network, self.stage, self.recipe))
        self.optimizer.step()
        return mean, left > 0

    def _weight(self, sample: Sample) -> Tensor:
        return valid_weight(sample.target, self.network.spec.ignore_label, self.weights)

    def _runs(self, samples: Sequence[Sample]) -> Iterator[list[Sample]]:
        """Runs of samples of one shape, no longer than the configuration allows."""
        most, run = self.recipe.stage(self.stage).micro_batch, list[Sample]()
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
            # Early layers, with few channels and many pixels, are up to twice as fast so, on CPUs and GPUs alike.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        target = torch.stack([sample.target for sample in samples])
        return Batch(to_device(inputs, device), to_device(target, device), samples)

    def _backward(self, batch: Batch, divisor: Tensor) -> Tensor:
        device, spec = self.world.device, self.network.spec
        # Dropout is the only randomness left here: tied to the sample it needs no state to resume.
        self.network.front_end.dropout.generators = [_generator(sample.seed, device) for sample in batch.samples]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            scores = self._scores(batch.inputs)
        weights = None if self.weights is None else self.weights.to(device)
        loss = summed_loss(scores, batch.target, spec.ignore_label, weights)[0]
        (loss / divisor).sum().backward()
        return loss.detach()

    def _scores(self, inputs: Tensor) -> Tensor:
        forward = self.forward or (lambda maps: stage_forward(self.network, self.stage, self.recipe, maps))
        scores = forward(inputs)
        return deconvolve(scores) if self.network.spec.upsampling == "deconvolution" else scores

    def _refuse(self, mean: float, iteration: int, wrong: Sequence[Sequence[Sample]]) -> None:
        own = [sample.uri for batch in wrong for sample in batch]
        everyone = enumerate(self.world.gather(own))
        images = "; ".join(f"rank {rank}: {', '.join(uris)}" for rank, uris in everyone if uris) or "no single image's"
        raise PipelineError(
            f"the loss of stage {self.stage} is {mean} at iteration {iteration} ({images}): lower "
            f"--{self.stage.replace('_', '-')}.learning-rate, or look at these images"
        )


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
