"""From an image and its label to a training sample (reference code: image_label_data_layer.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.dense_prediction import preprocess
from model.front_end import HEAD_CELLS
from model.geometry import MARGIN, OUTPUT_STRIDE, reflect_indices
from pipeline.training.sampling import Draw

__all__ = ["Sample", "feature_sample", "image_sample"]


@dataclass(frozen=True)
class Sample:
    """One crop.

    Attributes:
        inputs: (3, crop, crop) float32 BGR minus mean; or conv5_3 maps (F, cells + 24, cells + 24).
        target: (cells, cells) uint8: the label at the pixel under each cell, not a resized label.
        uri: of the image, for error messages.
    """

    inputs: Tensor
    target: Tensor
    uri: str


def image_sample(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    draw: Draw,
    *,
    cells: int,
    mean_bgr: tuple[float, float, float],
    ignore_label: int,
    uri: str = "",
) -> Sample:
    """Cuts a random crop out of the image reflected by 186 pixels.

    Where a crop is larger than the reflected image, reflection goes on to the right and below; the label is
    `ignore_label` everywhere outside the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8.
        draw: which crop.
        cells: of a side of the score map; the crop has 8·cells + 372 pixels a side.
        mean_bgr: subtracted from the pixels.
        ignore_label: see above.
        uri: for error messages.
    """
    crop = cells * OUTPUT_STRIDE + 2 * MARGIN
    rows = _axis(image.shape[0], crop, draw.row)
    columns = _axis(image.shape[1], crop, draw.column)
    pixels = image[np.ix_(rows.source, columns.source)]
    target = label[np.ix_(rows.source, columns.source)].copy()
    target[~rows.inside] = ignore_label
    target[:, ~columns.inside] = ignore_label
    if draw.mirror:
        pixels, target = pixels[:, ::-1], target[:, ::-1]
    anchors = slice(MARGIN, crop - MARGIN, OUTPUT_STRIDE)
    inputs = preprocess(pixels, mean_bgr)
    return Sample(inputs, torch.from_numpy(target[anchors, anchors].copy()), uri)


def feature_sample(features: Tensor, label: NDArray[np.uint8], draw: Draw, *, cells: int, uri: str = "") -> Sample:
    """Cuts a crop out of the conv5_3 maps of a whole reflected image.

    Equal to the maps of the image's crop wherever that lies on a multiple of eight pixels, since every layer before
    is a valid convolution or pooling at that grid; so crops are taken there. They never reach beyond the image.

    Args:
        features: (F, rows + 24, columns + 24), of the image as `draw.mirror` says.
        label: (H, W) uint8, not mirrored.
        draw: which crop.
        cells: most cells of a side.
        uri: for error messages.
    """
    label = label[:, ::-1] if draw.mirror else label
    target = label[::OUTPUT_STRIDE, ::OUTPUT_STRIDE]
    height, width = min(cells, target.shape[0]), min(cells, target.shape[1])
    top, left = _offset(target.shape[0] - height, draw.row), _offset(target.shape[1] - width, draw.column)
    return Sample(
        features[:, top : top + height + HEAD_CELLS, left : left + width + HEAD_CELLS].float(),
        torch.from_numpy(target[top : top + height, left : left + width].copy()),
        uri,
    )


@dataclass(frozen=True)
class _Axis:
    source: NDArray[np.int64]
    inside: NDArray[np.bool_]


def _axis(size: int, crop: int, share: float) -> _Axis:
    start = _offset(max(0, size + 2 * MARGIN - crop), share)
    positions = np.arange(start, start + crop) - MARGIN
    reflected = reflect_indices(size, MARGIN, max(MARGIN, crop - MARGIN - size))
    return _Axis(reflected[start : start + crop], (positions >= 0) & (positions < size))


def _offset(room: int, share: float) -> int:
    """One of the room + 1 places, each equally likely for a uniform share in [0, 1)."""
    return min(room, int(share * (room + 1)))
