"""TensorBoard event files, written locally and copied beside the checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from model.network import NetworkSpec
from pipeline.data.storage import Storage, join
from pipeline.results.report.contact_sheet import Panel, paint_sheet
from pipeline.training.loop import StepResult
from pipeline.training.sources import Images
from pipeline.training.validation import Validation

__all__ = ["Examples", "Summaries"]

_EXAMPLES = 3


class Examples:
    """The first predictions of a validation, drawn over their images and beside their labels.

    Args:
        images: of the validation split.
        spec: of the network.
    """

    def __init__(self, images: Images, spec: NetworkSpec) -> None:
        self._images, self._spec, self._panels = images, spec, list[Panel]()

    def add(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Keeps the prediction (H, W) for one image, if there are few yet."""
        if len(self._panels) < _EXAMPLES:
            name = self._images.pairs[index].image_uri.rsplit("/", 1)[-1]
            self._panels.append(Panel(name, self._images.image(index), labels, self._images.label(index)))

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        palette = np.asarray(self._spec.palette, np.uint8)
        return np.asarray(paint_sheet(self._panels, self._spec.classes, palette, self._spec.ignore_label))


class Summaries:
    """Scalars of a run; each start of the run adds an event file of its own, which TensorBoard joins.

    Args:
        storage: where the files go.
        output: of the run.
        first: place of the first step, counted over all stages; what an earlier start wrote from there on is void.
        active: whether this worker's files are copied there; one worker's are enough.
    """

    def __init__(self, storage: Storage, output: str, first: int = 0, *, active: bool = True) -> None:
        self._storage, self._target, self._active = storage, join(output, "tensorboard"), active
        self._folder = tempfile.TemporaryDirectory(prefix="tensorboard-")
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
        """Loss, rate, throughput and share of time spent waiting for data, at a place counted over all stages."""
        self._writer.add_scalar("train/loss", result.loss, place)
        self._writer.add_scalar("train/learning_rate", result.rate, place)
        self._writer.add_scalar("train/images_per_second", images_per_second, place)
        self._writer.add_scalar("train/data_wait_share", result.waited / max(1e-9, result.seconds), place)

    def validation(self, place: int, validation: Validation, examples: Examples) -> None:
        """Mean IoU, the IoU of each class, and a picture of a few predictions."""
        if self._active:
            self._writer.add_image("val/examples", examples.picture(), place, dataformats="HWC")
        if validation.mean_iou is not None:
            self._writer.add_scalar("val/mean_iou", validation.mean_iou, place)
        for name, value in zip(validation.classes, validation.iou, strict=True):
            if value is not None:
                self._writer.add_scalar(f"val/iou/{name}", value, place)

    def upload(self) -> None:
        """Copies the event files as they stand."""
        if not self._active:
            return
        self._writer.flush()
        for file in Path(self._folder.name).iterdir():
            self._storage.write(join(self._target, file.name), file.read_bytes())
