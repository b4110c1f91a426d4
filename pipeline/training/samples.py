"""From an image and its label to a training sample (reference code: image_label_data_layer.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.geometry import MARGIN, OUTPUT_STRIDE, gather, reflect_indices
from model.window_input import preprocess
from pipeline.training.sampling import Draw

__all__ = ["Sample", "SampleRule", "image_sample", "map_sample"]


@dataclass(frozen=True)
class Sample:
    """One crop.

    Attributes:
        inputs: (3, H, W) float32 BGR minus mean, margin included; or maps (F, rows, columns) of a frozen part.
        target: (h, w) uint8: the label at the pixel under each cell, not a resized label; or every pixel's.
        uri: of the image, for error messages.
        seed: of dropout.
    """

    inputs: Tensor
    target: Tensor
    uri: str
    seed: int = 0


@dataclass(frozen=True)
class SampleRule:
    """What all samples of a stage have in common.

    Attributes:
        cells: of a side of the score map; the crop has 8·cells + 372 pixels a side. None: the whole image.
        mean_bgr: subtracted from the pixels.
        ignore_label: of cells outside the image.
        target_stride: pixels between two labels of the target: 8, or 1 where a deconvolution predicts every pixel.
        scale: range of the random factor of resizing; None: no resizing.
    """

    cells: int | None
    mean_bgr: tuple[float, float, float]
    ignore_label: int = 255
    target_stride: int = OUTPUT_STRIDE
    scale: tuple[float, float] | None = None


def image_sample(
    image: NDArray[np.uint8], label: NDArray[np.uint8], draw: Draw, rule: SampleRule, uri: str = ""
) -> Sample:
    """Cuts a random crop out of the image, resized if the rule says so, then reflected by 186 pixels.

    Where a crop is larger than the reflected image, reflection goes on to the right and below; the label is
    `ignore_label` everywhere outside the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8.
        draw: which crop.
        rule: of the stage.
        uri: for error messages.
    """
    image, label = _resize(image, label, draw.scale, rule.scale)
    rows, columns = (
        _axis(size, rule.cells, share) for size, share in zip(label.shape, (draw.row, draw.column), strict=True)
    )
    if draw.mirror:
        columns = _Axis(columns.source[::-1], columns.inside[::-1])
    pixels = gather(image, rows.source, columns.source)
    rows, columns = rows.under_cells(rule.target_stride), columns.under_cells(rule.target_stride)
    target = gather(label, rows.source, columns.source)
    target[~rows.inside] = rule.ignore_label
    target[:, ~columns.inside] = rule.ignore_label
    return Sample(preprocess(pixels, rule.mean_bgr), torch.from_numpy(target), uri, draw.seed)


def map_sample(
    maps: Tensor, label: NDArray[np.uint8], draw: Draw, rule: SampleRule, halo: int, uri: str = ""
) -> Sample:
    """Cuts a crop out of maps of a whole reflected image: conv5_3 maps, or score maps.

    Equal to the maps of the image's crop wherever that lies on a multiple of eight pixels, since every layer before
    is a valid convolution or pooling at that grid; so crops are taken there. They never reach beyond the image.

    Args:
        maps: (F, rows + halo, columns + halo), of the image as `draw.mirror` says.
        label: (H, W) uint8, not mirrored.
        draw: which crop.
        rule: of the stage; `cells` is the most of a side.
        halo: cells that later valid convolutions consume: 24 for conv5_3 maps, 0 for scores.
        uri: for error messages.
    """
    label = label[:, ::-1] if draw.mirror else label
    rows, columns = (-(-size // OUTPUT_STRIDE) for size in label.shape)
    height, width = min(rule.cells or rows, rows), min(rule.cells or columns, columns)
    top, left = _offset(rows - height, draw.row), _offset(columns - width, draw.column)
    target = np.full((height * OUTPUT_STRIDE, width * OUTPUT_STRIDE), rule.ignore_label, np.uint8)
    part = label[top * OUTPUT_STRIDE :, left * OUTPUT_STRIDE :][: target.shape[0], : target.shape[1]]
    target[: part.shape[0], : part.shape[1]] = part
    kept = target[:: rule.target_stride, :: rule.target_stride]
    inputs = maps[:, top : top + height + halo, left : left + width + halo].float()
    return Sample(inputs, torch.from_numpy(kept.copy()), uri, draw.seed)


def _resize(
    image: NDArray[np.uint8], label: NDArray[np.uint8], share: float, scale: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels by nearest neighbour; images bicubic up, by area down (Pillow's BOX is OpenCV's INTER_AREA)."""
    if scale is None:
        return image, label
    factor = scale[0] + share * (scale[1] - scale[0])
    size = (max(1, round(label.shape[1] * factor)), max(1, round(label.shape[0] * factor)))
    method = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
    resized = Image.fromarray(image).resize(size, method)
    return np.asarray(resized), np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class _Axis:
    source: NDArray[np.int64]
    inside: NDArray[np.bool_]

    def under_cells(self, stride: int) -> _Axis:
        kept = slice(MARGIN, -MARGIN, stride)
        return _Axis(self.source[kept], self.inside[kept])


def _axis(size: int, cells: int | None, share: float) -> _Axis:
    crop = (-(-size // OUTPUT_STRIDE) if cells is None else cells) * OUTPUT_STRIDE + 2 * MARGIN
    # The whole image begins at its own first pixel; so does a crop that is larger than the reflected image.
    start = 0 if cells is None else _offset(max(0, size + 2 * MARGIN - crop), share)
    positions = np.arange(start, start + crop) - MARGIN
    reflected = reflect_indices(size, MARGIN, max(MARGIN, crop - MARGIN - size))
    return _Axis(reflected[start : start + crop], (positions >= 0) & (positions < size))


def _offset(room: int, share: float) -> int:
    """One of the room + 1 places, each equally likely for a uniform share in [0, 1)."""
    return min(room, int(share * (room + 1)))
