"""Preprocessing of a window in one pass on the CPU: RGB to BGR, mean subtraction, reflected rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.kernels.compilation import compiled

__all__ = ["reflect"]


def reflect(
    part: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64], mean_bgr: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Return rows and columns of an image, selected by index, as BGR minus mean.

    Args:
        part: Image, (H, W, 3) uint8 RGB.
        rows: Row indices into the image, (h,).
        columns: Column indices into the image, (w,).
        mean_bgr: Mean to subtract, 0–255.

    Returns:
        Selected pixels, (h, w, 3) float32 BGR.
    """
    pixels = np.empty((len(rows), 3 * len(columns)), np.float32)
    # The compiled code accepts one type of array: contiguous and writeable, although nothing is written.
    source = np.require(part, np.uint8, ("C", "W")).reshape(len(part), -1)
    _reflect(source, rows, columns, np.array(mean_bgr, np.float32), np.full(len(part), -1), pixels)
    return pixels.reshape(len(rows), len(columns), 3)


@compiled
def _reflect(source: Any, rows: Any, columns: Any, mean: Any, made: Any, pixels: Any) -> None:
    """Fill `pixels`; compute each source row once and copy it where it is reflected, in half of numpy's time.

    Args:
        source: Image, (H, 3·W) uint8 RGB.
        rows: Row indices into the source, (h,).
        columns: Column indices into the source, (w,).
        mean: Mean to subtract, (3,) float32 BGR.
        made: Scratch memory, (H,), all -1 at first: the row of `pixels` that holds each row of the source.
        pixels: Result, (h, 3·w) float32 BGR.
    """
    line = np.empty(source.shape[1], np.float32)
    for target in range(rows.size):
        into = pixels[target]
        row = source[rows[target]]
        before = made[rows[target]]
        if before >= 0:
            # A loop, not slices: numba checks slices for overlap first and takes five times as long.
            for i in range(into.size):
                into[i] = pixels[before, i]
            continue
        made[rows[target]] = target
        # The source row as BGR minus mean, then its columns by index.
        for i in range(0, row.size, 3):
            line[i] = np.float32(row[i + 2]) - mean[0]
            line[i + 1] = np.float32(row[i + 1]) - mean[1]
            line[i + 2] = np.float32(row[i]) - mean[2]
        for i in range(columns.size):
            for channel in range(3):
                into[3 * i + channel] = line[3 * columns[i] + channel]
