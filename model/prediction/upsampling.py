"""Upsampling of a score map to one label per pixel, with counts over the pixels.

`Upsampling` describes how: bilinear interpolation between the centers of cells, before or after the softmax.

`GRID` is the reference code's `interp_map`: softmax on the cells, bilinear interpolation between cells that lie on
pixels (8i, 8j), argmax. Neither `align_corners` mode of `torch.nn.functional.interpolate` is that function.
`DECONVOLUTION` is the fixed bilinear kernel (size 16, stride 8, padding 4, one group per class) at the end of the
Cityscapes release. It interpolates scores, with cell i centered on pixel 8i + 3.5 and zeros beyond the map; softmax
follows.

Along each axis, the pixels form strips of `stride` pixels, each between the centers of two neighboring cells. The first
strip may begin `offset` pixels before the image.

On the CPU `model.kernels.fused_upsample_argmax` computes everything in one pass. On other devices torch does, in as few
kernels as memory allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.precision import score_precision
from model.prediction.label_map import Counted, LabelMap, check_target, count_bands, to_label_map
from model.prediction.streams import to_device

__all__ = [
    "DECONVOLUTION",
    "GRID",
    "NAMED",
    "Upsampling",
    "cells_needed",
    "deconvolve",
    "interpolated_cells",
    "labels_from_scores",
    "upsample_scores",
]

# Floats of a band of pixel rows over all classes, on devices other than the CPU: 512 MiB of float32.
_BAND_FLOATS = 2**27
_LARGEST_STRIDE = 64  # pixels
_MOST_CELLS_BEFORE = 4  # FCN-8s has 3


@dataclass(frozen=True)
class Upsampling:
    """Bilinear interpolation from the cells of a score map to the pixels of an image.

    Attributes:
        stride: Distance of the centers of neighboring cells, pixels, 1–64.
        anchor: Coordinate of the center of cell 0, in pixels from the center of pixel 0, from -4·stride to stride - 1;
            negative if the score map begins before the image.
        interpolates: Values to interpolate: `probabilities`, after a softmax on the cells, or `scores`, before a
            softmax on the pixels.
        border: Cells beyond the outermost ones: copies of them (`clamp`) or `zeros`.

    Raises:
        ValueError: If an attribute is out of range or has another type.
    """

    stride: int
    anchor: float
    interpolates: Literal["probabilities", "scores"]
    border: Literal["clamp", "zeros"]

    def __post_init__(self) -> None:
        if type(self.stride) is not int or not 1 <= self.stride <= _LARGEST_STRIDE:
            raise ValueError(
                f"upsampling has stride {self.stride!r}: give a whole number of pixels, 1 to {_LARGEST_STRIDE}"
            )
        least = -_MOST_CELLS_BEFORE * self.stride
        if type(self.anchor) not in (int, float) or not least <= self.anchor <= self.stride - 1:
            raise ValueError(
                f"upsampling has anchor {self.anchor!r}: give a number of pixels, {least} to {self.stride - 1}"
            )
        if self.interpolates not in ("probabilities", "scores") or self.border not in ("clamp", "zeros"):
            raise ValueError(
                f"upsampling interpolates {self.interpolates!r} with border {self.border!r}: "
                "give probabilities or scores, and clamp or zeros"
            )
        # So that equal descriptions are written to equal bytes.
        object.__setattr__(self, "anchor", float(self.anchor))

    @property
    def name(self) -> str | None:
        """Name in checkpoints and recipes; None if it has none and must be described in full."""
        return next((name for name, known in NAMED.items() if known == self), None)

    @property
    def offset(self) -> int:
        """Pixels of the first strip that lie before the image, 0 to stride - 1."""
        return -math.ceil(self.anchor) % self.stride

    @property
    def before(self) -> int:
        """Cells beyond the map that pixel 0 needs, 0 or 1; negative: cells of the map that no pixel needs."""
        return (math.ceil(self.anchor) + self.offset) // self.stride

    @property
    def fractions(self) -> NDArray[np.float32]:
        """Positions of a strip's pixels between the centers of two cells, in cells, (stride,)."""
        first = np.float32(math.ceil(self.anchor) - self.anchor)
        return (np.arange(self.stride, dtype=np.float32) + first) / np.float32(self.stride)


GRID = Upsampling(stride=8, anchor=0.0, interpolates="probabilities", border="clamp")
DECONVOLUTION = Upsampling(stride=8, anchor=3.5, interpolates="scores", border="zeros")
NAMED = {"grid": GRID, "deconvolution": DECONVOLUTION}


def cells_needed(height: int, width: int, upsampling: Upsampling) -> tuple[int, int]:
    """Return the rows and columns of score cells from which an image's size in pixels is upsampled.

    The last pixel may lie as far beyond the last center as pixel 0 lies before the first, at most half a stride. The
    dilated front end computes one more cell for some sizes (`DilatedFrontEnd.score_map_size`).
    """
    stride = upsampling.stride
    beyond = min(max(upsampling.anchor, 0), (stride - 1) / 2)
    rows, columns = (math.ceil((size - 1 - upsampling.anchor - beyond) / stride) + 1 for size in (height, width))
    return max(rows, 1), max(columns, 1)


@torch.inference_mode()
def labels_from_scores(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling = GRID,
    *,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    ignore_label: int = 255,
) -> LabelMap:
    """Upsample a score map, select the most probable class of each pixel, and count.

    On the CPU only a few rows of all classes exist at full resolution at a time; the result takes H×W bytes.

    Args:
        scores: Scores before softmax, (C, rows, columns) float, finite, with `cells_needed` cells; or fewer, if no
            pixel lies a whole stride beyond the last center.
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        upsampling: Description of the upsampling.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: no confusion matrix.
        ignore_label: Id of target pixels that count nowhere; may be less than C.

    Raises:
        ValueError: If the score map is too small, or the target has another size or type, or an id out of range.
    """
    # No pixel may lie a whole stride beyond the last center.
    ends = (height - 1 - upsampling.anchor, width - 1 - upsampling.anchor)
    rows, columns = (max(1, math.floor(end / upsampling.stride) + 1) for end in ends)
    if scores.shape[1] < rows or scores.shape[2] < columns:
        raise ValueError(f"{height}×{width} pixels need {rows}×{columns} cells, got {tuple(scores.shape[1:])}")
    check_target(target, height, width)
    by_device = _by_fused_pass if scores.device.type == "cpu" else _by_torch
    counted = by_device(scores.float(), height, width, upsampling, confidence, target)
    return to_label_map(counted, labelled=target is not None, ignore_label=ignore_label)


def deconvolve(scores: Tensor) -> Tensor:
    """Apply the fixed kernel of `DECONVOLUTION` to whole maps, for training: (N, C, h, w) → (N, C, 8h, 8w), float32."""
    stride = DECONVOLUTION.stride
    width = 2 * stride
    ramp = 1 - (torch.arange(width, device=scores.device) - (width - 1) / 2).abs() / stride
    kernel = (ramp[:, None] * ramp).expand(scores.shape[1], 1, width, width)
    classes = scores.shape[1]
    with score_precision(scores.device):
        return functional.conv_transpose2d(scores.float(), kernel, stride=stride, padding=stride // 2, groups=classes)


def upsample_scores(scores: Tensor, height: int, width: int, upsampling: Upsampling) -> Tensor:
    """Interpolate scores of whole maps, for training: (N, C, rows, columns) → (N, C, height, width), float32.

    Args:
        scores: Scores, at least `cells_needed(height, width, upsampling)` cells.
        height: Height of the result, pixels.
        width: Width of the result, pixels.
        upsampling: Description of the upsampling, which interpolates scores.
    """
    if upsampling == DECONVOLUTION:
        return deconvolve(scores)[:, :, :height, :width]
    with score_precision(scores.device):
        cells = interpolated_cells(scores.float(), height, width, upsampling)
        fractions = to_device(torch.from_numpy(upsampling.fractions), cells.device)
        offset = upsampling.offset
        return _interpolate(cells, fractions)[:, :, offset : offset + height, offset : offset + width]


def interpolated_cells(scores: Tensor, height: int, width: int, upsampling: Upsampling) -> Tensor:
    """Return the cells that the strips of an image lie between: probabilities or scores, border included.

    Args:
        scores: Scores, (C, rows, columns) or (N, C, rows, columns) float32. Where a map is larger than needed, its own
            cells take the place of the border.
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        upsampling: Description of the upsampling.

    Returns:
        Cells, (…, C, strips down + 1, strips across + 1). Pixel (0, 0) lies `offset` pixels after the start of the
        first strip in each direction.
    """
    before = upsampling.before
    first = max(0, -before)
    # The first cell beyond those that the last pixel lies between.
    ends = [(size - 1 + upsampling.offset) // upsampling.stride + 2 - before for size in (height, width)]
    cells = scores[..., first : ends[0], first : ends[1]]
    if upsampling.interpolates == "probabilities":
        cells = cells.softmax(dim=-3)
    below, right = (max(0, end - size) for end, size in zip(ends, scores.shape[-2:], strict=True))
    start = max(0, before)
    mode = "replicate" if upsampling.border == "clamp" else "constant"
    return functional.pad(cells, (start, right, start, below), mode)


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
        fractions=upsampling.fractions,
        offset=upsampling.offset,
        probabilities=upsampling.interpolates == "probabilities",
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
    stride = upsampling.stride
    offset = upsampling.offset
    fractions = to_device(torch.from_numpy(upsampling.fractions), cells.device)
    step = max(1, _BAND_FLOATS // (cells.shape[0] * cells.shape[2] * stride**2))
    for row in range(0, cells.shape[1] - 1, step):
        pixels = _interpolate(cells[:, row : row + step + 1], fractions)
        # Cut what lies before and after the image.
        top = row * stride - offset
        first = max(0, -top)
        band = pixels[:, first : height - top, offset : offset + width]
        yield top + first, band if upsampling.interpolates == "probabilities" else band.softmax(dim=0)


def _interpolate(cells: Tensor, fractions: Tensor) -> Tensor:
    """Interpolate cells, (…, r + 1, c + 1) → pixels (…, stride·r, stride·c); a fraction of 0 gives the cell itself."""
    down = torch.lerp(cells[..., :-1, None, :], cells[..., 1:, None, :], fractions[:, None]).flatten(-3, -2)
    return torch.lerp(down[..., :-1, None], down[..., 1:, None], fractions).flatten(-2, -1)
