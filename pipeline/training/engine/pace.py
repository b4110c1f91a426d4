"""Progress lines of a stage (loss, rate, images per second, time left) and a warning about an unusual first loss."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from pipeline.training.engine.loop import StepResult
from pipeline.training.recipes.schema import StageConfig, StageName

__all__ = ["ThroughputLogger"]

# Seconds between two lines.
_SECONDS = 5.0


class ThroughputLogger:
    """Progress lines with averages over the steps since the last line.

    Args:
        stage: Name of the stage.
        config: Configuration of the stage.
        classes: Number of classes, C.

    Attributes:
        images_per_second: Throughput of the last step over all workers.
    """

    def __init__(self, stage: StageName, config: StageConfig, classes: int) -> None:
        self._stage = stage
        self._config = config
        self._classes = classes
        self._printed = time.monotonic()
        self._steps = 0
        self._loss = 0.0
        self.images_per_second = 0.0

    def lines(self, result: StepResult) -> Iterator[str]:
        """Yield the lines to print after a step; most steps yield none."""
        self.images_per_second = self._config.batch / max(1e-9, result.seconds)
        if result.iteration == 0 and self._stage == "front_end":
            yield from self._first(result.loss)
        self._steps = self._steps + 1
        self._loss = self._loss + result.loss
        now = time.monotonic()
        last = result.iteration + 1 == self._config.iterations
        if now - self._printed >= _SECONDS or last:
            yield self._line(result, now - self._printed)
            self._printed = now
            self._steps = 0
            self._loss = 0.0

    def _line(self, result: StepResult, seconds: float) -> str:
        per_step = seconds / self._steps
        left = per_step * (self._config.iterations - result.iteration - 1)
        return (
            f"{self._stage} {result.iteration + 1}/{self._config.iterations}  loss {self._loss / self._steps:.4f}  "
            f"rate {result.rate:.2e}  {self._config.batch / per_step:.2f} images/s  {left / 60:.1f} min left"
        )

    def _first(self, loss: float) -> Iterator[str]:
        """Yield a warning if the first loss is far from ln C, that of an untrained network (fyu/dilation, issue 12)."""
        expected = math.log(self._classes)
        if not 0.3 * expected <= loss <= 3 * expected:
            yield (
                f"warning: the first loss is {loss:.2f}, a network that knows nothing has about ln {self._classes} = "
                f"{expected:.2f}: check mean, label space and initial weights"
            )
