"""Prediction tile by tile, as the released deploy nets were run (reference code: predict.py, test.py).

The image is reflected by 186 pixels and cut into tiles of the deploy net's fixed input size. A tile that reaches beyond
the image is reflected at its right and bottom. The context module pads at the edges of each tile, so scores near an
edge differ from whole-image geometry. This module accepts that for parity with published masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.errors import PredictionError
from model.networks.dilated.geometry import MARGIN, OUTPUT_STRIDE
from model.networks.network import Network
from model.precision import front_end_precision
from model.prediction.geometry import reflect_indices
from model.prediction.label_map import LabelMap, Mosaic, check_target
from model.prediction.upsampling import labels_from_scores

__all__ = ["predict", "tiled_scores"]


def predict(
    network: Network,
    image: Tensor,
    *,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> LabelMap:
    """Label every pixel of a preprocessed image, tile by tile.

    Args:
        network: Network in evaluation mode, with a reference window.
        image: Preprocessed image, (3, H, W) float32 BGR minus mean.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: no confusion matrix.
        on_window: Callback after each tile.

    Raises:
        ValueError: If the network's metadata give no reference window, or the target has another size or type, or an
            id out of range.
        PredictionError: If a score is NaN or infinite.
    """
    height, width = image.shape[1:]
    check_target(target, height, width)
    upsampling = network.spec.upsampling
    if upsampling.border == "zeros":
        return _predict_by_tile(network, image, confidence, target, on_window)
    scores = tiled_scores(network, image, on_window)
    rows, columns = network.score_map_size(height, width)
    # If the image is an exact multiple of the tile, the reference reads one row beyond the map; clamped here.
    short = (0, max(0, columns - scores.shape[2]), 0, max(0, rows - scores.shape[1]))
    fitted = functional.pad(scores[None], short, mode="replicate")[0]
    ignore_label = network.spec.ignore_label
    return labels_from_scores(
        fitted, height, width, upsampling, confidence=confidence, target=target, ignore_label=ignore_label
    )


@torch.inference_mode()
def tiled_scores(network: Network, image: Tensor, on_window: Callable[[], None] = lambda: None) -> Tensor:
    """Return the scores of all tiles side by side, (C, tiles down · rows, tiles across · columns), float32.

    The tiles of the KITTI release are 1268 pixels and 159 cells wide (158.5 rounded up). So the map is half a cell off
    from the second tile on, as in the reference.

    Args:
        network: Network in evaluation mode, with a reference window.
        image: Preprocessed image, (3, H, W) float32 BGR minus mean.
        on_window: Callback after each tile.

    Raises:
        ValueError: If the network's metadata give no reference window.
    """
    bands = _scores_by_tile(network, image, on_window)
    return torch.cat([torch.cat(list(band), dim=2) for band in bands], dim=1)


@torch.inference_mode()
def _scores_by_tile(network: Network, image: Tensor, on_window: Callable[[], None]) -> Iterator[Iterator[Tensor]]:
    """Yield the rows of tiles from top to bottom, each an iterator over tile scores (C, h, w) from left to right."""
    window = network.spec.reference_window
    if window is None:
        raise ValueError("this checkpoint names no reference_window: use --geometry image")
    padded = _reflect(_reflect(image, 1, MARGIN, MARGIN), 2, MARGIN, MARGIN)
    for tile_row in _tiles(padded, 1, window[0]):
        yield (_scores(network, tile, on_window) for tile in _tiles(tile_row, 2, window[1]))


@torch.inference_mode()
def _scores(network: Network, tile: Tensor, on_window: Callable[[], None]) -> Tensor:
    """Return the scores of a tile, (3, H, W) → (C, h, w) float32, and refuse values that are not finite."""
    parameter = next(network.parameters())
    with front_end_precision(parameter.device):
        scores = network(tile[None].to(parameter))[0].float()
    if not bool(torch.isfinite(scores).all()):
        raise PredictionError(f"a tile of {tile.shape[1]}×{tile.shape[2]} pixels gives NaN or infinite scores")
    on_window()
    return scores


def _predict_by_tile(
    network: Network,
    image: Tensor,
    confidence: bool,
    target: NDArray[np.uint8] | None,
    on_window: Callable[[], None],
) -> LabelMap:
    """Label an image tile by tile, upsampling included, as the Cityscapes release does.

    The upsampling is part of the net, so each tile has zeros beyond its own cells.
    """
    height, width = image.shape[1:]
    spec = network.spec
    mosaic = Mosaic((height, width), len(spec.classes), confidence=confidence, labelled=target is not None)
    top = 0
    for band in _scores_by_tile(network, image, on_window):
        left = rows = 0
        for scores in band:
            rows, columns = (OUTPUT_STRIDE * size for size in scores.shape[1:])
            # The last tiles reach beyond the image.
            rows = min(rows, height - top)
            columns = min(columns, width - left)
            place = np.s_[top : top + rows, left : left + columns]
            aim = None if target is None else target[place]
            part = labels_from_scores(
                *(scores, rows, columns, spec.upsampling),
                confidence=confidence,
                target=aim,
                ignore_label=spec.ignore_label,
            )
            mosaic.add(place, part)
            left += columns
        top += rows
    return mosaic.label_map()


def _tiles(padded: Tensor, axis: int, window: int) -> list[Tensor]:
    """Cut tiles of `window` pixels along `axis`, `window - 372` pixels apart; the last is reflected to full size."""
    step = window - 2 * MARGIN
    count = -(-(padded.shape[axis] - 2 * MARGIN) // step)
    tiles = []
    for tile in range(count):
        part = padded.narrow(axis, tile * step, min(window, padded.shape[axis] - tile * step))
        tiles.append(_reflect(part, axis, 0, window - part.shape[axis]))
    return tiles


def _reflect(image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Extend an axis by reflection (REFLECT_101) of `before` pixels at its start and `after` at its end."""
    if before == after == 0:
        return image
    return image.index_select(axis, torch.from_numpy(reflect_indices(image.shape[axis], before, after)))
