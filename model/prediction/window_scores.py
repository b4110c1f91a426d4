"""Scores of the front end, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from model.networks.network import Network
from model.precision import front_end_precision
from model.prediction.geometry import Window, plan_windows
from model.prediction.window_input import WindowInput

__all__ = ["window_scores"]


def window_scores(
    network: Network, images: Sequence[WindowInput], max_window: int, on_window: Callable[[], None]
) -> Iterator[tuple[Window, Tensor]]:
    """Yield each window of images of one `WindowInput.batch_size` with its scores, (N, C, h, w), without context.

    Args:
        network: Network in evaluation mode.
        images: Inputs of the N images.
        max_window: Longest side of a window, pixels, margin included.
        on_window: Callback after each window.

    Raises:
        ValueError: If the sizes differ, or `max_window` cannot hold a cell.
    """
    (cells,) = {image.cells for image in images}
    parameter = next(network.parameters())
    footprint = network.front_end.footprint
    for window in plan_windows(*cells, max_window, footprint):
        # N batches of (1, 3, h, w) -> (N, 3, h, w); a single image is not copied.
        first, *others = (image.batch(window) for image in images)
        batch = torch.cat([first, *others]) if others else first
        # Entered for each window, because a generator would keep its caller in this precision too.
        with front_end_precision(parameter.device):
            scores = network.front_end(batch.to(parameter.dtype))
        on_window()
        yield window, scores[:, :, *window.kept(footprint)]
