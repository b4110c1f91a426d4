"""The last step: from a score map at stride 8 to one label per pixel, in bands of rows.

`grid` is the reference code's `interp_map`: softmax on the cells, bilinear between cells that sit on pixels
(8i, 8j), argmax. Neither `align_corners` mode of `torch.nn.functional.interpolate` is that function.
`deconvolution` is the fixed bilinear kernel (size 16, stride 8, padding 4, one group per class) that ends the
Cityscapes release: scores are interpolated, cell i centred on pixel 8i + 3.5 and zeros beyond the map, then softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.geometry import OUTPUT_STRIDE, score_map_size
from model.network import Upsampling

__all__ = ["LabelMap", "cells_needed", "deconvolve", "labels_from_scores"]

_BAND_CELLS = 4


@dataclass(frozen=True)
class LabelMap:
    """The prediction for one image.

    Attributes:
        labels: (H, W) uint8, the most probable class of each pixel; of equals, the lowest id.
        confidence: (H, W) uint8, 255 times the winning probability, or None if it was not asked for.
        mean_confidence: mean winning probability over pixels, 0–1.
        mean_entropy: mean Shannon entropy of the class probabilities over pixels, in nats.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    mean_confidence: float
    mean_entropy: float


def cells_needed(height: int, width: int, upsampling: Upsampling) -> tuple[int, int]:
    """Rows and columns of the score map from which an image of this size in pixels is upsampled."""
    if upsampling == "deconvolution":
        return -(-height // OUTPUT_STRIDE), -(-width // OUTPUT_STRIDE)
    return score_map_size(height, width)


@torch.inference_mode()
def labels_from_scores(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling = "grid",
    *,
    confidence: bool = False,
) -> LabelMap:
    """Upsamples a score map and picks the most probable class of each pixel.

    Only a band of a few rows exists at full resolution for all classes at any time; what stays is H×W bytes.

    Args:
        scores: (C, rows, columns) float, before softmax; at least `cells_needed(height, width, upsampling)`.
        height: of the image, pixels.
        width: of the image, pixels.
        upsampling: see the module's text.
        confidence: whether to keep the winning probability of each pixel.

    Raises:
        ValueError: if the score map is too small.
    """
    rows, columns = cells_needed(height, width, upsampling)
    if scores.shape[1] < rows or scores.shape[2] < columns:
        raise ValueError(f"{height}×{width} pixels need {rows}×{columns} cells, got {tuple(scores.shape[1:])}")
    labels = np.empty((height, width), np.uint8)
    winning = np.empty((height, width), np.uint8) if confidence else None
    total_confidence = total_entropy = 0.0
    # A transposed convolution of a larger map sees cells, not zeros, beyond the part that is wanted.
    kept = scores if upsampling == "deconvolution" else scores[:, :rows, :columns]
    for top, probabilities in _bands(kept.float(), height, width, upsampling):
        band = slice(top, top + probabilities.shape[1])
        best, best_class = _argmax(probabilities)
        labels[band] = best_class.cpu().numpy()
        if winning is not None:
            winning[band] = (best * 255).round().to(torch.uint8).cpu().numpy()
        total_confidence += float(best.sum(dtype=torch.float64))
        total_entropy += float(torch.special.entr(probabilities).sum(dtype=torch.float64))
    pixels = height * width
    return LabelMap(labels, winning, total_confidence / pixels, total_entropy / pixels)


def deconvolve(scores: Tensor) -> Tensor:
    """The fixed kernel of `deconvolution` on whole maps, for training: (N, C, h, w) → (N, C, 8h, 8w), float32."""
    width = 2 * OUTPUT_STRIDE
    ramp = 1 - (torch.arange(width, device=scores.device) - (width - 1) / 2).abs() / OUTPUT_STRIDE
    kernel = (ramp[:, None] * ramp).expand(scores.shape[1], 1, width, width)
    classes, padding = scores.shape[1], OUTPUT_STRIDE // 2
    # Autocast would round a convolution's input to bfloat16, and with it every pixel's scores.
    with torch.autocast(scores.device.type, enabled=False):
        return functional.conv_transpose2d(
            scores.float(), kernel, stride=OUTPUT_STRIDE, padding=padding, groups=classes
        )


def _bands(scores: Tensor, height: int, width: int, upsampling: Upsampling) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, probabilities (C, rows of the band, W)) from top to bottom."""
    if upsampling == "grid":
        cells, anchor, offset = scores.softmax(dim=0), 0.0, 0
    else:
        # One ring of zeros, what a transposed convolution sees beyond the map; pixel 0 lies 4 pixels into it.
        cells, anchor, offset = functional.pad(scores, (1, 1, 1, 1)), 0.5, OUTPUT_STRIDE // 2
    fractions = (torch.arange(OUTPUT_STRIDE, device=scores.device) + anchor) / OUTPUT_STRIDE
    for row in range(0, cells.shape[1] - 1, _BAND_CELLS):
        pixels = _interpolate(cells[:, row : row + _BAND_CELLS + 1], fractions)
        top = row * OUTPUT_STRIDE - offset
        first, last = max(0, -top), min(pixels.shape[1], height - top)
        if last > first:
            band = pixels[:, first:last, offset : offset + width]
            yield top + first, band if upsampling == "grid" else band.softmax(dim=0)


def _interpolate(cells: Tensor, fractions: Tensor) -> Tensor:
    """(C, r + 1, c + 1) cells → (C, 8r, 8c) pixels; a fraction of 0 gives the cell itself, exactly."""
    down = torch.lerp(cells[:, :-1, None], cells[:, 1:, None], fractions[:, None]).flatten(1, 2)
    return torch.lerp(down[..., :-1, None], down[..., 1:, None], fractions).flatten(2, 3)


def _argmax(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Running maximum over classes: faster than `max(dim=0)`, and of equals the lowest id is sure to win."""
    best = probabilities[0].clone()
    best_class = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for class_id in range(1, probabilities.shape[0]):
        candidate = probabilities[class_id]
        best_class.masked_fill_(candidate > best, class_id)
        torch.maximum(best, candidate, out=best)
    return best, best_class
