"""Input of the front end from an image's bytes: windows of the image or of its reflection, as BGR minus mean."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.prediction.geometry import Footprint, Window
from model.prediction.streams import PendingTensors, Stream, to_device

__all__ = ["WindowInput", "preprocess", "reflect_on_device", "reflect_on_host"]

Mean = tuple[float, float, float]
Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]


def preprocess(image: NDArray[np.uint8], mean_bgr: Mean) -> Tensor:
    """Convert an image, (H, W, 3) uint8 RGB → (3, H, W) float32 BGR minus mean."""
    rows = np.take(image, (2, 1, 0), axis=2).reshape(len(image), -1)
    # One subtraction of long rows: numpy is slow on an innermost axis of three.
    pixels = np.subtract(rows, np.tile(np.array(mean_bgr, np.float32), image.shape[1]), dtype=np.float32)
    return torch.from_numpy(pixels.reshape(image.shape)).permute(2, 0, 1)


class WindowInput:
    """Source of front-end windows of an image, which is reflected as far as its score map reaches if the border is.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        cells: Rows and columns of the score map.
        mean_bgr: Mean to subtract, 0–255.
        device: Device of the front end.
        footprint: Footprint of the front end.

    Attributes:
        size: Height and width of the image, pixels.
        cells: Rows and columns of the score map.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        cells: tuple[int, int],
        mean_bgr: Mean,
        device: torch.device,
        footprint: Footprint,
    ) -> None:
        self.size = (image.shape[0], image.shape[1])
        self.cells = cells
        self._image = image
        self._mean = mean_bgr
        self._device = device
        self._footprint = footprint
        self._ready: tuple[Window, PendingTensors] | None = None
        self._rows, self._columns = (
            footprint.sources(length, count) for length, count in zip(image.shape[:2], cells, strict=True)
        )

    @property
    def batch_size(self) -> tuple[int, int]:
        """Rows and columns that the images of a batch share: of cells, or of pixels that are not reflected."""
        return self.size if self._footprint.border == "padded" else self.cells

    def prepare(self, window: Window, stream: Stream) -> None:
        """Compute a window's batch in `stream` now, so that another thread and stream can use it later."""
        with stream.use():
            self._ready = window, stream.record([self.batch(window)])

    def batch(self, window: Window) -> Tensor:
        """Return a window's pixels as a batch, (1, 3, h, w) float32 on the device, channels last in memory."""
        if self._ready is not None and self._ready[0] == window:
            return self._ready[1].wait()[0]
        # Other windows than the prepared one mean that memory ran out with it: it is not needed again.
        self._ready = None
        down, across = window.pixels(self._footprint)
        rows = self._rows[down]
        columns = self._columns[across]
        top = int(rows.min())
        left = int(columns.min())
        # Use only the pixels of the window, because an image may be much larger than any window.
        part = self._image[top : rows.max() + 1, left : columns.max() + 1]
        if self._device.type == "cpu":
            pixels = reflect_on_host(part, rows - top, columns - left, self._mean)
        else:
            pixels = reflect_on_device(part, rows - top, columns - left, self._mean, self._device)
        return pixels.permute(2, 0, 1)[None]

    def whole(self) -> Tensor:
        """Return the batch of one window that covers the whole score map."""
        return self.batch(Window(0, 0, *self.cells))


def reflect_on_host(part: Pixels, rows: Indices, columns: Indices, mean_bgr: Mean) -> Tensor:
    """Select rows and columns of an image by index, on the CPU; return (h, w, 3) float32 BGR minus mean."""
    # Imported here, so that processes that do not predict do not load the compiler.
    from model.kernels.fused_reflection import reflect

    return torch.from_numpy(reflect(part, rows, columns, mean_bgr))


def reflect_on_device(part: Pixels, rows: Indices, columns: Indices, mean_bgr: Mean, device: torch.device) -> Tensor:
    """Select rows and columns of an image by index, on a device; return (h, w, 3) float32 BGR minus mean.

    Each byte of the image is copied to the device once: a tenth of the volume of the window's floats.
    """
    source = to_device(torch.from_numpy(np.ascontiguousarray(part)), device)
    down, across = (to_device(torch.from_numpy(indices), device) for indices in (rows, columns))
    pixels = source.index_select(1, across).index_select(0, down)
    return pixels.flip(2).float().sub_(to_device(torch.tensor(mean_bgr), device))
