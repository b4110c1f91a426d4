"""Labels of an image window by window, for networks whose score map would be as large as the image.

A network with a score at every pixel makes C floats of each: 8 GiB of an image of 100 megapixels with 21 classes. Its
cells need no neighbors to be labeled, so a window is labeled before the next one is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import PredictionError
from model.networks.network import Network
from model.prediction.label_map import LabelMap, Mosaic
from model.prediction.upsampling import labels_from_scores
from model.prediction.window_input import WindowInput
from model.prediction.window_scores import window_scores

__all__ = ["label_by_windows", "needs_windows"]

# Largest score map that is assembled whole, bytes.
LARGEST_SCORE_MAP = 2**30


def needs_windows(network: Network, cells: tuple[int, int]) -> bool:
    """Return whether an image's score map is too large to be assembled, and windows alone give the same labels.

    Args:
        network: Network that predicts.
        cells: Rows and columns of the score map.
    """
    footprint = network.front_end.footprint
    alone = network.context is None and footprint.overlap is None and footprint.stride == 1
    return alone and 4 * len(network.spec.classes) * cells[0] * cells[1] > LARGEST_SCORE_MAP


@torch.inference_mode()
def label_by_windows(
    network: Network,
    source: WindowInput,
    *,
    max_window: int,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> LabelMap:
    """Label every pixel of an image, one window after another.

    Args:
        network: Network in evaluation mode, for which `needs_windows` holds.
        source: Input of the image.
        max_window: Longest side of a window, pixels, margin included.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: no confusion matrix.
        on_window: Callback after each window.

    Raises:
        PredictionError: If a score is NaN or infinite.
        ValueError: If `max_window` cannot hold a cell, or the target has another size or type, or an id out of range.
    """
    spec = network.spec
    mosaic = Mosaic(source.size, len(spec.classes), confidence=confidence, labelled=target is not None)
    for window, batch in window_scores(network, [source], max_window, on_window):
        scores = batch[0].float()
        if not bool(torch.isfinite(scores).all()):
            raise PredictionError(f"a window of {window.rows}×{window.columns} pixels has NaN or infinite scores")
        # With a score at every pixel, the cells of a window are its pixels.
        place = window.cells
        part = labels_from_scores(
            *(scores, window.rows, window.columns, spec.upsampling),
            confidence=confidence,
            target=None if target is None else np.ascontiguousarray(target[place]),
            ignore_label=spec.ignore_label,
        )
        mosaic.add(place, part)
    return mosaic.label_map()
