"""TensorBoard event files, written locally and copied beside the checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from pipeline.data.storage import Storage, join
from pipeline.training.loop import StepResult
from pipeline.training.validation import Validation

__all__ = ["Summaries"]


class Summaries:
    """Scalars of a run; each start of the run adds an event file of its own, which TensorBoard joins.

    Args:
        storage: where the files go.
        output: of the run.
        active: whether this worker's files are copied there; one worker's are enough.
    """

    def __init__(self, storage: Storage, output: str, *, active: bool = True) -> None:
        self._storage, self._target, self._active = storage, join(output, "tensorboard"), active
        self._folder = tempfile.TemporaryDirectory(prefix="tensorboard-")
        self._writer = SummaryWriter(self._folder.name)

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

    def validation(self, place: int, validation: Validation) -> None:
        """Mean IoU and the IoU of each class."""
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
