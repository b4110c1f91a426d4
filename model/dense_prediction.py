"""A label for every pixel of an image of any size, in memory bounded by one window plus the score map.

Only the front end is tiled. Its windows each see their own 186 pixels of real neighbourhood, the score map (64
times smaller than the image) is assembled whole, and the context module runs on all of it, so no seam can appear
and the result does not depend on the size of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import reference_geometry
from model.errors import PredictionError
from model.geometry import MARGIN, OUTPUT_STRIDE, Window, gather, plan_windows, reflect_indices
from model.network import DilatedNetwork
from model.upsampling import LabelMap, cells_needed, check_target, labels_from_scores

__all__ = ["DEFAULT_WINDOW", "Geometry", "predict", "preprocess", "score_map"]

Geometry = Literal["image", "reference"]
# Pixels a side, margin included: 108 cells, about 1 GiB of activations at full width in float32.
DEFAULT_WINDOW = 1236


def predict(
    network: DilatedNetwork,
    image: NDArray[np.uint8],
    *,
    max_window: int = DEFAULT_WINDOW,
    geometry: Geometry = "image",
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> LabelMap:
    """Labels every pixel.

    Args:
        network: in evaluation mode, on any device.
        image: (H, W, 3) uint8 RGB, at least one pixel a side.
        max_window: longest side of a front-end window, pixels, margin included; `image` geometry only.
        geometry: `image` as described in the module's text; `reference` as the released nets do, tile by tile.
        confidence: whether to keep the winning probability of each pixel.
        target: (H, W) class ids, or the network's ignore label, to count the labels against.
        on_window: called after each window, or tile, and once more before upsampling.

    Raises:
        PredictionError: if a score is NaN or infinite.
        ValueError: if `max_window` is too small, the network has no reference window, or the target is of another
            size or has an id out of range.
    """
    height, width = image.shape[:2]
    check_target(target, height, width)
    if geometry == "reference":
        pixels = preprocess(image, network.spec.mean_bgr)
        return reference_geometry.predict(network, pixels, confidence=confidence, target=target, on_window=on_window)
    scores = score_map(network, image, max_window=max_window, on_window=on_window)
    if not bool(torch.isfinite(scores).all()):
        raise PredictionError(
            f"the score map of this {height}×{width} image holds NaN or infinite values: check the checkpoint"
        )
    return labels_from_scores(
        scores,
        height,
        width,
        network.spec.upsampling,
        confidence=confidence,
        target=target,
        ignore_label=network.spec.ignore_label,
    )


def preprocess(image: NDArray[np.uint8], mean_bgr: tuple[float, float, float]) -> Tensor:
    """(H, W, 3) uint8 RGB → (3, H, W) float32 BGR minus mean."""
    rows = np.take(image, (2, 1, 0), axis=2).reshape(len(image), -1)
    # One subtraction of long rows: numpy is slow on an innermost axis of three.
    pixels = np.subtract(rows, np.tile(np.array(mean_bgr, np.float32), image.shape[1]), dtype=np.float32)
    return torch.from_numpy(pixels.reshape(image.shape)).permute(2, 0, 1)


@torch.inference_mode()
def score_map(
    network: DilatedNetwork,
    image: NDArray[np.uint8],
    *,
    max_window: int = DEFAULT_WINDOW,
    on_window: Callable[[], None] = lambda: None,
) -> Tensor:
    """Scores of the whole image after the context module, (C, rows, columns) float32 on the network's device."""
    height, width = image.shape[:2]
    rows, columns = cells_needed(height, width, network.spec.upsampling)
    parameter = next(network.parameters())
    whole = torch.empty(len(network.spec.classes), rows, columns, device=parameter.device)
    source_rows = reflect_indices(height, MARGIN, rows * OUTPUT_STRIDE + MARGIN - height)
    source_columns = reflect_indices(width, MARGIN, columns * OUTPUT_STRIDE + MARGIN - width)
    with torch.autocast(parameter.device.type, torch.bfloat16, enabled=parameter.device.type == "cuda"):
        for window in plan_windows(rows, columns, max_window):
            pixels = _window_pixels(image, window, source_rows, source_columns)
            batch = preprocess(pixels, network.spec.mean_bgr)[None].to(parameter)
            whole[:, *window.cells] = network.front_end(batch)[0]
            on_window()
        scores = network.add_context(whole[None])[0].float()
        on_window()
        return scores


def _window_pixels(
    image: NDArray[np.uint8], window: Window, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.uint8]:
    row_slice, column_slice = window.pixels
    return gather(image, rows[row_slice], columns[column_slice])
