"""The last step: from a score map at stride 8 to one label per pixel, and what is counted over pixels.

`grid` is the reference code's `interp_map`: softmax on the cells, bilinear between cells that sit on pixels
(8i, 8j), argmax. Neither `align_corners` mode of `torch.nn.functional.interpolate` is that function.
`deconvolution` is the fixed bilinear kernel (size 16, stride 8, padding 4, one group per class) that ends the
Cityscapes release: scores are interpolated, cell i centred on pixel 8i + 3.5 and zeros beyond the map, then softmax.

On the CPU `model.fused_last_step` does all in one pass. Elsewhere torch does, in as few kernels as memory allows.
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

__all__ = ["LabelMap", "cells_needed", "check_target", "deconvolve", "labels_from_scores"]

# Of all classes at full resolution at a time, away from the CPU: 512 MiB of float32.
_BAND_FLOATS = 2**27
# Labels and targets are bytes.
_IDS = 256


@dataclass(frozen=True)
class LabelMap:
    """The prediction for one image.

    Attributes:
        labels: (H, W) uint8, the most probable class of each pixel; of equals, the lowest id.
        confidence: (H, W) uint8, 255 times the winning probability, or None if it was not asked for.
        mean_confidence: mean winning probability over pixels, 0–1.
        mean_entropy: mean Shannon entropy of the class probabilities over pixels, in nats.
        class_pixels: (C,) int64, pixels of each class.
        confusion: (C, C) int64, pixels by target (rows) and label (columns) without those whose target is the ignore
            label, or None without a target.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    mean_confidence: float
    mean_entropy: float
    class_pixels: NDArray[np.int64]
    confusion: NDArray[np.int64] | None


@dataclass(frozen=True)
class _Counted:
    """Labels, 255 times the winning probability, sums over pixels, pixels by target (0 if none) and label (256, C)."""

    labels: NDArray[np.uint8]
    winning: NDArray[np.uint8] | None
    total_confidence: float
    total_entropy: float
    pairs: NDArray[np.int64]


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
    target: NDArray[np.uint8] | None = None,
    ignore_label: int = 255,
) -> LabelMap:
    """Upsamples a score map, picks the most probable class of each pixel and counts.

    On the CPU a few rows exist at full resolution for all classes at any time; what stays is H×W bytes.

    Args:
        scores: (C, rows, columns) float, finite, before softmax; at least `cells_needed(height, width, upsampling)`.
        height: of the image, pixels.
        width: of the image, pixels.
        upsampling: see the module's text.
        confidence: whether to keep the winning probability of each pixel.
        target: (H, W) class ids to count the labels against.
        ignore_label: of target pixels that count nowhere; may lie below C.

    Raises:
        ValueError: if the score map is too small, or the target of another size or with an id out of range.
    """
    rows, columns = cells_needed(height, width, upsampling)
    if scores.shape[1] < rows or scores.shape[2] < columns:
        raise ValueError(f"{height}×{width} pixels need {rows}×{columns} cells, got {tuple(scores.shape[1:])}")
    check_target(target, height, width)
    by_device = _by_fused_pass if scores.device.type == "cpu" else _by_torch
    counted = by_device(scores.float(), height, width, upsampling, confidence, target)
    pixels = height * width
    return LabelMap(
        counted.labels,
        counted.winning,
        counted.total_confidence / pixels,
        counted.total_entropy / pixels,
        counted.pairs.sum(axis=0),
        None if target is None else _confusion(counted.pairs, ignore_label),
    )


def check_target(target: NDArray[np.uint8] | None, height: int, width: int) -> None:
    """Of an image of this size in pixels.

    Raises:
        ValueError: if the target is of another size or type.
    """
    if target is not None and (target.shape != (height, width) or target.dtype != np.uint8):
        raise ValueError(f"target {target.shape} {target.dtype}, must be {(height, width)} uint8 as the image")


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


def _confusion(pairs: NDArray[np.int64], ignore_label: int) -> NDArray[np.int64]:
    """(256, C) pixels by target and label → (C, C)."""
    classes = pairs.shape[1]
    counting = np.arange(_IDS) != ignore_label
    if pairs[classes:][counting[classes:]].any():
        raise ValueError(f"a class id is not below {classes}")
    return pairs[:classes] * counting[:classes, None]


def _cells(scores: Tensor, height: int, width: int, upsampling: Upsampling) -> Tensor:
    """What is interpolated: probabilities, or scores in one ring of zeros; as many cells as the pixels need."""
    rows, columns = cells_needed(height, width, upsampling)
    if upsampling == "grid":
        return scores[:, :rows, :columns].softmax(dim=0)
    # What a transposed convolution sees beyond the map; of a larger map it sees cells beyond the part that is wanted.
    return functional.pad(scores, (1, 1, 1, 1))[:, : rows + 2, : columns + 2]


def _by_fused_pass(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> _Counted:
    # Here, since it brings a compiler that takes a while to import.
    from model.fused_last_step import last_step

    labels, winning, sums, pairs = last_step(
        _cells(scores, height, width, upsampling).numpy(),
        height,
        width,
        deconvolution=upsampling == "deconvolution",
        confidence=confidence,
        target=target,
    )
    return _Counted(labels, winning, *sums, pairs)


def _by_torch(
    scores: Tensor,
    height: int,
    width: int,
    upsampling: Upsampling,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> _Counted:
    """On the scores' device; one transfer to the host at the end."""
    classes, device = scores.shape[0], scores.device
    labels = torch.empty((height, width), dtype=torch.uint8, device=device)
    winning = torch.empty((height if confidence else 0, width), dtype=torch.uint8, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    pairs = torch.zeros(_IDS * classes, dtype=torch.int64, device=device)
    targets = None if target is None else torch.from_numpy(np.require(target, requirements="W")).to(device)
    for top, probabilities in _bands(_cells(scores, height, width, upsampling), height, width, upsampling):
        band = slice(top, top + probabilities.shape[1])
        best, best_class = probabilities.max(dim=0)  # of equals, the first
        labels[band] = best_class
        if confidence:
            winning[band] = (best * 255).round()
        sums += torch.stack([values.sum(dtype=torch.float64) for values in (best, torch.special.entr(probabilities))])
        pair = best_class if targets is None else best_class + classes * targets[band].long()
        pairs += torch.bincount(pair.flatten(), minlength=_IDS * classes)
    return _to_host(labels, winning if confidence else None, sums, pairs)


def _to_host(labels: Tensor, winning: Tensor | None, sums: Tensor, pairs: Tensor) -> _Counted:
    """All in one transfer, as bytes."""
    parts = [sums, pairs, labels] if winning is None else [sums, pairs, labels, winning]
    data = torch.cat([part.flatten().view(torch.uint8) for part in parts]).cpu().numpy()
    sums_end = sums.nbytes
    pairs_end = sums_end + pairs.nbytes
    confidence, entropy = data[:sums_end].view(np.float64).tolist()
    maps = data[pairs_end:].reshape(-1, *labels.shape)
    return _Counted(
        maps[0],
        None if winning is None else maps[1],
        confidence,
        entropy,
        data[sums_end:pairs_end].view(np.int64).reshape(_IDS, -1),
    )


def _bands(cells: Tensor, height: int, width: int, upsampling: Upsampling) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, probabilities (C, rows of the band, W)) from top to bottom."""
    anchor, offset = (0.0, 0) if upsampling == "grid" else (0.5, OUTPUT_STRIDE // 2)
    fractions = (torch.arange(OUTPUT_STRIDE, device=cells.device) + anchor) / OUTPUT_STRIDE
    step = max(1, _BAND_FLOATS // (cells.shape[0] * cells.shape[2] * OUTPUT_STRIDE**2))
    for row in range(0, cells.shape[1] - 1, step):
        pixels = _interpolate(cells[:, row : row + step + 1], fractions)
        top = row * OUTPUT_STRIDE - offset
        first, last = max(0, -top), min(pixels.shape[1], height - top)
        if last > first:
            band = pixels[:, first:last, offset : offset + width]
            yield top + first, band if upsampling == "grid" else band.softmax(dim=0)


def _interpolate(cells: Tensor, fractions: Tensor) -> Tensor:
    """(C, r + 1, c + 1) cells → (C, 8r, 8c) pixels; a fraction of 0 gives the cell itself, exactly."""
    down = torch.lerp(cells[:, :-1, None], cells[:, 1:, None], fractions[:, None]).flatten(1, 2)
    return torch.lerp(down[..., :-1, None], down[..., 1:, None], fractions).flatten(2, 3)
