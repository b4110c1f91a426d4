"""Training loop of one stage in plain torch, for one or many workers, resumable at any iteration."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.training.engine.schedule import rate
from pipeline.training.engine.step import Batch, Step
from pipeline.training.samples.crops import Sample

__all__ = ["StepResult", "run_steps"]

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
