"""The training loop of one stage: plain torch, the same on one worker or many, resumable at any iteration."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.training.samples import Sample
from pipeline.training.schedule import rate
from pipeline.training.step import Batch, Step

__all__ = ["StepResult", "run_steps"]

# Batches prepared while the network works on one.
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
        leaving: whether the machine of some worker is about to be taken away.
    """

    iteration: int
    loss: float
    rate: float
    seconds: float
    waited: float
    leaving: bool


def run_steps(step: Step, sample: Callable[[int, int], Sample], first: int, loaders: int = 2) -> Iterator[StepResult]:
    """Runs the steps of a stage from iteration `first` to its end, yielding after each.

    Args:
        step: of the stage.
        sample: (iteration, position in the global batch) → sample; called from other threads.
        first: iteration to begin with.
        loaders: threads that prepare samples.

    Raises:
        PipelineError: if the loss is not finite.
    """
    config = step.recipe.stage(step.stage)
    positions = step.world.share(config.batch)
    with ThreadPoolExecutor(loaders, "samples") as pool:
        ahead: deque[Future[list[Batch]]] = deque()

        def prepare(iteration: int) -> None:
            if iteration < config.iterations:
                parts = [pool.submit(sample, iteration, position) for position in positions]
                # The pool begins its work in this order: what a thread waits for here is done or being done.
                ahead.append(pool.submit(lambda: step.batches([part.result() for part in parts])))

        for iteration in range(first, first + _AHEAD):
            prepare(iteration)
        try:
            for iteration in range(first, config.iterations):
                started = time.perf_counter()
                prepare(iteration + _AHEAD)
                batches = ahead.popleft().result()
                waited = time.perf_counter() - started
                loss, leaving = step(batches, iteration)
                seconds = time.perf_counter() - started
                yield StepResult(iteration, loss, rate(config, iteration), seconds, waited, leaving)
        finally:
            # After an error nobody wants the batches that are still being prepared.
            pool.shutdown(wait=False, cancel_futures=True)
