"""Upsampling of a score map at stride 8 to one label per pixel, with counts over the pixels.

`grid` is the reference code's `interp_map`: softmax on the cells, bilinear interpolation between cells that lie on
pixels (8i, 8j), argmax. Neither `align_corners` mode of `torch.nn.functional.interpolate` is that function.
`deconvolution` is the fixed bilinear kernel (size 16, stride 8, padding 4, one group per class) at the end of the
Cityscapes release. It interpolates scores, with cell i centered on pixel 8i + 3.5 and zeros beyond the map; softmax
follows.

On the CPU `model.kernels.fused_upsample_argmax` computes everything in one pass. On other devices torch does, in as few
kernels as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.dilated.network import Upsampling
from model.precision import score_precision
from model.prediction.geometry import OUTPUT_STRIDE, score_map_size
from model.prediction.label_map import Counted, LabelMap, check_target, count_bands, to_label_map

__all__ = ["cells_needed", "deconvolve", "interpolated_cells", "labels_from_scores"]

# Floats of a band of pixel rows over all classes, on devices other than the CPU: 512 MiB of float32.
_BAND_FLOATS = 2**27


def cells_needed(height: int, width: int, upsampling: Upsampling) -> tuple[int, int]:
    """Return the rows and columns of score cells from which an image's size in pixels is upsampled."""
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
    target: NDArray[np.uint8] | None = None,
    ignore_label: int = 255,
) -> LabelMap:
    """Upsample a score map, select the most probable class of each pixel, and count.

    On the CPU only a few rows of all classes exist at full resolution at a time; the result takes H×W bytes.

    Args:
        scores: Scores before softmax, (C, rows, columns) float, finite, at least
            `cells_needed(height, width, upsampling)` cells.
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        upsampling: Kind of upsampling, see the module's docstring.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: no confusion matrix.
        ignore_label: Id of target pixels that count nowhere; may be less than C.

    Raises:
        ValueError: If the score map is too small, or the target has another size or type, or an id out of range.
    """
    rows, columns = cells_needed(height, width, upsampling)
    if scores.shape[1] < rows or scores.shape[2] < columns:
        raise ValueError(f"{height}×{width} pixels need {rows}×{columns} cells, got {tuple(scores.shape[1:])}")
    check_target(target, height, width)
    by_device = _by_fused_pass if scores.device.type == "cpu" else _by_torch
    counted = by_device(scores.float(), height, width, upsampling, confidence, target)
    return to_label_map(counted, labelled=target is not None, ignore_label=ignore_label)


def deconvolve(scores: Tensor) -> Tensor:
    """Apply the fixed kernel of `deconvolution` to whole maps, for training: (N, C, h, w) → (N, C, 8h, 8w), float32."""
    width = 2 * OUTPUT_STRIDE
    ramp = 1 - (torch.arange(width, device=scores.device) - (width - 1) / 2).abs() / OUTPUT_STRIDE
    kernel = (ramp[:, None] * ramp).expand(scores.shape[1], 1, width, width)
    classes = scores.shape[1]
    padding = OUTPUT_STRIDE // 2
    with score_precision(scores.device):
        return functional.conv_transpose2d(
            scores.float(), kernel, stride=OUTPUT_STRIDE, padding=padding, groups=classes
        )


def interpolated_cells(scores: Tensor, height: int, width: int, upsampling: Upsampling) -> Tensor:
    """Return the cells to interpolate: probabilities, or scores in one ring of zeros, as many as the pixels need."""
    rows, columns = cells_needed(height, width, upsampling)
    if upsampling == "grid":
        return scores[:, :rows, :columns].softmax(dim=0)
    # A transposed convolution has zeros beyond the map. A map that is larger than needed supplies its own cells there.
    return functional.pad(scores, (1, 1, 1, 1))[:, : rows + 2, : columns + 2]


def _by_fused_pass(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> Counted:
    """Compute labels and counts on the CPU with compiled code."""
    # Imported here, because it loads a compiler, which takes a while.
    from model.kernels.fused_upsample_argmax import fused_upsample_argmax

    labels, winning, sums, pairs = fused_upsample_argmax(
        interpolated_cells(scores, height, width, upsampling).numpy(),
        height,
        width,
        deconvolution=upsampling == "deconvolution",
        confidence=confidence,
        target=target,
    )
    return Counted(labels, winning, *sums, pairs)


def _by_torch(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> Counted:
    """Compute labels and counts with torch, on any device, band by band."""
    bands = _bands(interpolated_cells(scores, height, width, upsampling), height, width, upsampling)
    return count_bands(bands, (height, width), scores.shape[0], scores.device, confidence=confidence, target=target)


def _bands(cells: Tensor, height: int, width: int, upsampling: Upsampling) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, probabilities (C, rows of the band, W)) from top to bottom."""
    anchor, offset = (0.0, 0) if upsampling == "grid" else (0.5, OUTPUT_STRIDE // 2)
    fractions = (torch.arange(OUTPUT_STRIDE, device=cells.device) + anchor) / OUTPUT_STRIDE
    step = max(1, _BAND_FLOATS // (cells.shape[0] * cells.shape[2] * OUTPUT_STRIDE**2))
    for row in range(0, cells.shape[1] - 1, step):
        pixels = _interpolate(cells[:, row : row + step + 1], fractions)
        # With a ring of zeros, the cells begin half a cell before the image: cut what lies outside.
        top = row * OUTPUT_STRIDE - offset
        first = max(0, -top)
        last = min(pixels.shape[1], height - top)
        if last > first:
            band = pixels[:, first:last, offset : offset + width]
            yield top + first, band if upsampling == "grid" else band.softmax(dim=0)


def _interpolate(cells: Tensor, fractions: Tensor) -> Tensor:
    """Interpolate cells, (C, r + 1, c + 1) → pixels (C, 8r, 8c); a fraction of 0 gives exactly the cell itself."""
    down = torch.lerp(cells[:, :-1, None], cells[:, 1:, None], fractions[:, None]).flatten(1, 2)
    return torch.lerp(down[..., :-1, None], down[..., 1:, None], fractions).flatten(2, 3)
