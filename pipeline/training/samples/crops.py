"""Samples: random parameters as a pure function of seed, stage, iteration and position, and their crops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.networks.dilated.geometry import FOOTPRINT, OUTPUT_STRIDE
from model.prediction.geometry import Footprint, gather, reflect_indices
from model.prediction.window_input import preprocess
from pipeline.training.recipes.schema import STAGES, StageName

__all__ = ["Sample", "SampleParams", "SampleRule", "image_sample", "map_sample", "sample_params"]


@dataclass(frozen=True)
class SampleParams:
    """Random parameters of the sample at one position of one batch.

    Attributes:
        index: Index of the image in the training set.
        row: Vertical place of the crop, as a share (0–1) of the room that it has.
        column: Horizontal place of the crop, as a share (0–1) of the room that it has.
        mirror: Whether the sample is mirrored left to right.
        seed: Seed of dropout.
        scale: Place of the resize factor in its range, as a share (0–1).
    """

    index: int
    row: float
    column: float
    mirror: bool
    seed: int = 0
    scale: float = 0.0


def sample_params(
    seed: int, stage: StageName, iteration: int, position: int, *, batch: int, images: int
) -> SampleParams:
    """Return the random parameters of the sample at `position` of the global batch of `iteration`.

    Images come in a new random order each epoch. The result does not depend on the worker that asks.

    Args:
        seed: Seed of the recipe.
        stage: Name of the stage.
        iteration: Number of the step in its stage, counted from 0.
        position: Position in the global batch, 0 to batch - 1.
        batch: Number of samples in the global batch.
        images: Number of images in the training set.

    Raises:
        ValueError: If `position` is not within the batch, or there are no images.
    """
    if not 0 <= position < batch or images < 1:
        raise ValueError(f"position {position} is not within a batch of {batch}, or {images} images are none")
    # Number of the sample in the stage; an epoch may end in the middle of a batch.
    place = iteration * batch + position
    epoch, offset = divmod(place, images)
    key = STAGES.index(stage)
    index = int(_order(seed, key, epoch, images)[offset])
    # The third number separates this stream from that of the order of images, which has 0.
    rng = np.random.default_rng((seed, key, 1, place))
    row, column, coin = rng.random(3)
    dropout_seed = int(rng.integers(2**63))
    scale = float(rng.random())
    return SampleParams(index, float(row), float(column), bool(coin < 0.5), dropout_seed, scale)


@lru_cache(maxsize=4)
def _order(seed: int, stage: int, epoch: int, images: int) -> NDArray[np.int64]:
    """Return the order of the images in an epoch; cached, as every sample of the epoch asks for it."""
    return np.random.default_rng((seed, stage, 0, epoch)).permutation(images)


@dataclass(frozen=True)
class Sample:
    """One training crop with its label.

    Attributes:
        inputs: Image (3, H, W), float32 BGR minus mean, margin included; or maps (F, rows, columns) of a frozen part.
        target: Labels (h, w), uint8, of the pixel under each cell (not of a resized label), or of every pixel.
        uri: URI of the image, for error messages.
        seed: Seed of dropout.
    """

    inputs: Tensor
    target: Tensor
    uri: str
    seed: int = 0


@dataclass(frozen=True)
class SampleRule:
    """Settings that all samples of a stage share.

    Attributes:
        crop: Side of a crop in pixels, margin included; None: the whole image.
        mean_bgr: Mean (0–255) that is subtracted from the pixels.
        ignore_label: Label of cells outside the image.
        target_stride: Pixels between two labels of the target: the stride, or 1 if the loss covers every pixel.
        scale: Range of the random resize factor; None: no resizing.
        footprint: Footprint of the front end.
        first: Pixel under the first cell; 0 if the loss covers every pixel.
        extra: Cells that a map has beyond one for every stride, because it begins before the image.
    """

    crop: int | None
    mean_bgr: tuple[float, float, float]
    ignore_label: int = 255
    target_stride: int = OUTPUT_STRIDE
    scale: tuple[float, float] | None = None
    footprint: Footprint = FOOTPRINT
    first: int = 0
    extra: int = 0

    @property
    def cells(self) -> int | None:
        """Number of score cells along a side of a crop; None for the whole image."""
        if self.crop is None:
            return None
        return -(-(self.crop - 2 * self.footprint.crop_margin) // self.footprint.stride)


def image_sample(
    image: NDArray[np.uint8], label: NDArray[np.uint8], params: SampleParams, rule: SampleRule, uri: str = ""
) -> Sample:
    """Return a random crop of an image that is resized if the rule has a scale, then reflected by the margin.

    The margin is the front end's halo, or none if the network pads by itself. If a crop is larger than the reflected
    image, the reflection continues to the right and below. The label is `ignore_label` everywhere outside the image.

    Args:
        image: Image (H, W, 3), uint8 RGB.
        label: Class ids (H, W), uint8.
        params: Random parameters of the sample.
        rule: Settings of the stage's samples.
        uri: URI of the image, for error messages.
    """
    # Step 1: resize image and label by the random factor.
    image, label = _resize(image, label, params.scale, rule.scale)
    # Step 2: find the source pixel of every pixel of the crop, margin included, along each axis.
    rows, columns = (
        _axis(size, rule, share) for size, share in zip(label.shape, (params.row, params.column), strict=True)
    )
    if params.mirror:
        columns = _Axis(columns.source[::-1], columns.inside[::-1])
    # (H, W, 3) -> (h, w, 3); with a margin of 186 pixels, h is 8·rows + 372 for `rows` rows of cells.
    pixels = gather(image, rows.source, columns.source)
    # Step 3: pick the labels under the cells; pixels that exist only by reflection are ignored in the loss.
    rows = rows.under_cells(rule)
    columns = columns.under_cells(rule)
    target = gather(label, rows.source, columns.source)
    target[~rows.inside] = rule.ignore_label
    target[:, ~columns.inside] = rule.ignore_label
    return Sample(preprocess(pixels, rule.mean_bgr), torch.from_numpy(target), uri, params.seed)


def map_sample(
    maps: Tensor, label: NDArray[np.uint8], params: SampleParams, rule: SampleRule, halo: int, uri: str = ""
) -> Sample:
    """Return a random crop of maps of a whole image: maps before the head, or score maps.

    In the dilated family, every earlier layer is a valid convolution or pooling on a grid of eight pixels. The crop
    therefore equals the maps of an image crop that starts at a multiple of eight pixels. Crops start only there, and
    never reach beyond the image. In a family that pads by itself, only score maps of whole images equal prediction's.

    Args:
        maps: Maps (F, rows + halo, columns + halo) of the image, already mirrored if `params.mirror`.
        label: Class ids (H, W), uint8, not mirrored.
        params: Random parameters of the sample.
        rule: Settings of the stage's samples; `cells` is the largest side of a crop.
        halo: Cells that later valid convolutions consume; 0 for score maps.
        uri: URI of the image, for error messages.
    """
    label = label[:, ::-1] if params.mirror else label
    # Cells that hold at least one pixel of the image.
    stride = rule.footprint.stride
    rows, columns = (-(-size // stride) for size in label.shape)
    height = min(rule.cells or rows, rows)
    width = min(rule.cells or columns, columns)
    top = _offset(rows - height, params.row)
    left = _offset(columns - width, params.column)
    # The last cell may reach beyond the label by up to stride - 1 pixels, which stay ignored.
    target = np.full((height * stride, width * stride), rule.ignore_label, np.uint8)
    part = label[top * stride :, left * stride :][: target.shape[0], : target.shape[1]]
    target[: part.shape[0], : part.shape[1]] = part
    # (stride·height, stride·width) -> (height, width), if the loss covers only the pixels under cells.
    kept = target[rule.first :: rule.target_stride, rule.first :: rule.target_stride]
    more = halo + rule.extra
    inputs = maps[:, top : top + height + more, left : left + width + more].float()
    return Sample(inputs, torch.from_numpy(kept.copy()), uri, params.seed)


def _resize(
    image: NDArray[np.uint8], label: NDArray[np.uint8], share: float, scale: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize labels by nearest neighbor, images bicubic up and by area down (Pillow's BOX is OpenCV's INTER_AREA)."""
    if scale is None:
        return image, label
    factor = scale[0] + share * (scale[1] - scale[0])
    size = (max(1, round(label.shape[1] * factor)), max(1, round(label.shape[0] * factor)))
    method = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
    resized = Image.fromarray(image).resize(size, method)
    return np.asarray(resized), np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class _Axis:
    """Pixels of a crop along one axis: index of the source pixel, and whether the pixel lies inside the image."""

    source: NDArray[np.int64]
    inside: NDArray[np.bool_]

    def under_cells(self, rule: SampleRule) -> _Axis:
        """Return the pixels under the cells, or all pixels without the margin if the loss covers them."""
        margin = rule.footprint.crop_margin
        kept = slice(margin + rule.first, len(self.source) - margin, rule.target_stride)
        return _Axis(self.source[kept], self.inside[kept])


def _axis(size: int, rule: SampleRule, share: float) -> _Axis:
    """Return a crop along an axis of `size` pixels, at the place `share` (0–1) of the room it has.

    Coordinates of the reflected image start a margin before the image.
    """
    margin = rule.footprint.crop_margin
    # Without padding of its own, the network needs a whole number of cells.
    stride = rule.footprint.stride if rule.footprint.border == "reflected" else 1
    crop = -(-size // stride) * stride + 2 * margin if rule.crop is None else rule.crop
    # The whole image starts at its first pixel, and so does a crop that is larger than the reflected image.
    start = 0 if rule.crop is None else _offset(max(0, size + 2 * margin - crop), share)
    positions = np.arange(start, start + crop) - margin
    reflected = reflect_indices(size, margin, max(margin, crop - margin - size))
    return _Axis(reflected[start : start + crop], (positions >= 0) & (positions < size))


def _offset(room: int, share: float) -> int:
    """Return one of the room + 1 offsets, each equally likely for a uniform share in [0, 1)."""
    return min(room, int(share * (room + 1)))
