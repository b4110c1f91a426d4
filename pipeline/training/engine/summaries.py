"""Progress lines of a stage, and TensorBoard summaries of a run."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from model.networks.network import NetworkSpec
from pipeline.data.storage import Storage, join
from pipeline.results.report.contact_sheet import Panel, paint_sheet
from pipeline.training.engine.step import StepResult
from pipeline.training.engine.validation import Validation
from pipeline.training.recipes.schema import StageConfig, StageName
from pipeline.training.samples.sources import Images

__all__ = ["Examples", "Summaries", "ThroughputLogger"]

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


# Number of images in the picture of a validation.
_EXAMPLES = 3


class Examples:
    """Picture of the first predictions of a validation, drawn over their images and beside their labels.

    Args:
        images: Images and labels of the validation split.
        spec: Specification of the network, for class names and colors.
    """

    def __init__(self, images: Images, spec: NetworkSpec) -> None:
        self._images = images
        self._spec = spec
        self._panels = list[Panel]()

    def add(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Keep the prediction of an image if fewer than three are kept.

        Args:
            index: Index of the image in the validation split.
            labels: Predicted class ids (H, W).
        """
        if len(self._panels) < _EXAMPLES:
            name = self._images.pairs[index].image_uri.rsplit("/", 1)[-1]
            self._panels.append(Panel(name, self._images.image(index), labels, self._images.label(index)))

    def picture(self) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 3) uint8 RGB."""
        palette = np.asarray(self._spec.palette, np.uint8)
        return np.asarray(paint_sheet(self._panels, self._spec.classes, palette, self._spec.ignore_label))


class Summaries:
    """TensorBoard writer of a run; each start of the run adds one event file, and TensorBoard joins the files.

    Args:
        storage: Storage to which the files are copied.
        output: URI of the run's output.
        first: Number of the first step, counted over all stages; earlier event files become void from this step on.
        active: Whether this worker copies its files to the output; one worker is enough.
    """

    def __init__(self, storage: Storage, output: str, first: int = 0, *, active: bool = True) -> None:
        self._storage = storage
        self._target = join(output, "tensorboard")
        self._active = active
        self._folder = tempfile.TemporaryDirectory(prefix="tensorboard-")
        # A resumed run repeats steps: TensorBoard drops the earlier values from `first` on.
        self._writer = SummaryWriter(self._folder.name, purge_step=first)

    def __enter__(self) -> Summaries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if error is None:
            self.upload()
        self._folder.cleanup()

    def step(self, place: int, result: StepResult, images_per_second: float) -> None:
        """Log loss, learning rate, throughput and share of time spent waiting for data.

        Args:
            place: Number of the step, counted over all stages.
            result: Result of the step.
            images_per_second: Throughput over all workers.
        """
        self._writer.add_scalar("train/loss", result.loss, place)
        self._writer.add_scalar("train/learning_rate", result.rate, place)
        self._writer.add_scalar("train/images_per_second", images_per_second, place)
        self._writer.add_scalar("train/data_wait_share", result.waited / max(1e-9, result.seconds), place)

    def validation(self, place: int, validation: Validation, examples: Examples) -> None:
        """Log mean IoU, the IoU of each class, and the picture of a few predictions.

        Args:
            place: Number of the step, counted over all stages.
            validation: Scores of the validation.
            examples: Predictions for the picture.
        """
        if self._active:
            self._writer.add_image("val/examples", examples.picture(), place, dataformats="HWC")
        if validation.mean_iou is not None:
            self._writer.add_scalar("val/mean_iou", validation.mean_iou, place)
        for name, value in zip(validation.classes, validation.iou, strict=True):
            if value is not None:
                self._writer.add_scalar(f"val/iou/{name}", value, place)

    def upload(self) -> None:
        """Copy the event files to the output in their current state."""
        if not self._active:
            return
        self._writer.flush()
        for file in Path(self._folder.name).iterdir():
            self._storage.write(join(self._target, file.name), file.read_bytes())
