"""Which sample comes when: a pure function of (seed, stage, iteration, position), so a resumed run needs no state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.training.recipe_schema import STAGES, StageName

__all__ = ["Draw", "draw"]


@dataclass(frozen=True)
class Draw:
    """What is taken from the training set for one place in one batch.

    Attributes:
        index: of the image.
        row: where the crop lies, as a share (0–1) of the room it has.
        column: likewise.
        mirror: whether left and right change places.
        seed: of dropout.
        scale: where the factor of resizing lies in its range, as a share.
    """

    index: int
    row: float
    column: float
    mirror: bool
    seed: int = 0
    scale: float = 0.0


def draw(seed: int, stage: StageName, iteration: int, position: int, *, batch: int, images: int) -> Draw:
    """The sample at `position` of the global batch of `iteration`.

    Images come in a new random order each epoch; which worker asks does not matter.

    Raises:
        ValueError: if `position` is not within the batch or there are no images.
    """
    if not 0 <= position < batch or images < 1:
        raise ValueError(f"position {position} is not within a batch of {batch}, or {images} images are none")
    place = iteration * batch + position
    epoch, offset = divmod(place, images)
    key = STAGES.index(stage)
    index = int(_order(seed, key, epoch, images)[offset])
    rng = np.random.default_rng((seed, key, 1, place))
    row, column, coin = rng.random(3)
    dropout_seed, scale = int(rng.integers(2**63)), float(rng.random())
    return Draw(index, float(row), float(column), bool(coin < 0.5), dropout_seed, scale)


@lru_cache(maxsize=4)
def _order(seed: int, stage: int, epoch: int, images: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, stage, 0, epoch)).permutation(images)
