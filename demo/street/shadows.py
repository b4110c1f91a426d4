"""Who stands in whose shadow: rays towards the sun against boxes and balls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from demo.street.camera import Floats

__all__ = ["Shadows"]

_FAR = 1e9


class Shadows:
    """Everything that throws a shadow.

    Args:
        towards_sun: unit vector.
    """

    def __init__(self, towards_sun: Sequence[float]) -> None:
        # A sun right over an axis would divide by zero.
        self._sun = tuple(value if abs(value) > 1e-4 else 1e-4 for value in towards_sun)
        self._boxes: list[tuple[float, ...]] = []
        self._balls: list[tuple[float, ...]] = []

    def add_box(self, low: Sequence[float], high: Sequence[float]) -> None:
        """An upright box between two corners, in metres."""
        self._boxes.append((*low, *high))

    def add_ball(self, centre: Sequence[float], radius: float) -> None:
        """A ball, such as a tree's crown."""
        self._balls.append((*centre, radius))

    def lit(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
        """1 where the sun reaches a point, 0 in the shadow."""
        point = [np.asarray(value, np.float32) for value in (x, y, z)]
        dark = np.zeros(np.broadcast_shapes(*(value.shape for value in point)), bool)
        for box in self._boxes:
            dark |= self._behind_box(point, box)
        for ball in self._balls:
            dark |= self._behind_ball(point, ball)
        return (~dark).astype(np.float32)

    def _behind_box(self, point: Sequence[Floats], box: Sequence[float]) -> np.ndarray:
        enter: Floats | float = 1e-3
        leave: Floats | float = _FAR
        for axis, direction in enumerate(self._sun):
            first = (np.float32(box[axis]) - point[axis]) / np.float32(direction)
            last = (np.float32(box[axis + 3]) - point[axis]) / np.float32(direction)
            enter = np.maximum(enter, np.minimum(first, last))
            leave = np.minimum(leave, np.maximum(first, last))
        return np.asarray(enter < leave)

    def _behind_ball(self, point: Sequence[Floats], ball: Sequence[float]) -> np.ndarray:
        offset = [np.float32(ball[axis]) - point[axis] for axis in range(3)]
        along = offset[0] * self._sun[0] + offset[1] * self._sun[1] + offset[2] * self._sun[2]
        apart = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 - along**2
        return np.asarray((along > 0) & (apart < ball[3] ** 2))
