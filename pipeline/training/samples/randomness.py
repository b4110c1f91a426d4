"""Random choice of samples as a pure function of (seed, stage, iteration, position), so resuming needs no state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.training.recipes.schema import STAGES, StageName

__all__ = ["SampleParams", "sample_params"]


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
