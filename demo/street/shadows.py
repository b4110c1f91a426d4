"""Shadows: rays towards the sun, tested against boxes and balls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from demo.street.camera import Floats

__all__ = ["Shadows"]

_FAR = 1e9


class Shadows:
    """Bodies that cast shadows.

    Args:
        towards_sun: Unit vector (x, y, z) towards the sun.
    """

    def __init__(self, towards_sun: Sequence[float]) -> None:
        # A component of 0 would cause a division by zero in the slab test.
        self._sun = tuple(value if abs(value) > 1e-4 else 1e-4 for value in towards_sun)
        self._boxes: list[tuple[float, ...]] = []
        self._balls: list[tuple[float, ...]] = []

    def add_box(self, low: Sequence[float], high: Sequence[float]) -> None:
        """Add an upright box between two corners, in meters."""
        self._boxes.append((*low, *high))

    def add_ball(self, centre: Sequence[float], radius: float) -> None:
        """Add a ball, such as a tree's crown, by center and radius in meters."""
        self._balls.append((*centre, radius))

    def lit(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
        """Return 1 where the sun reaches a point and 0 in the shadow; x, y and z in meters broadcast."""
        point = [np.asarray(value, np.float32) for value in (x, y, z)]
        dark = np.zeros(np.broadcast_shapes(*(value.shape for value in point)), bool)
        for box in self._boxes:
            dark |= self._behind_box(point, box)
        for ball in self._balls:
            dark |= self._behind_ball(point, ball)
        return (~dark).astype(np.float32)

    def _behind_box(self, point: Sequence[Floats], box: Sequence[float]) -> np.ndarray:
        """Return whether the ray from each point towards the sun hits a box (slab test)."""
        enter: Floats | float = 1e-3
        leave: Floats | float = _FAR
        for axis, direction in enumerate(self._sun):
            first = (np.float32(box[axis]) - point[axis]) / np.float32(direction)
            last = (np.float32(box[axis + 3]) - point[axis]) / np.float32(direction)
            enter = np.maximum(enter, np.minimum(first, last))
            leave = np.minimum(leave, np.maximum(first, last))
        return np.asarray(enter < leave)

    def _behind_ball(self, point: Sequence[Floats], ball: Sequence[float]) -> np.ndarray:
        """Return whether the ray from each point towards the sun passes within a ball's radius."""
        offset = [np.float32(ball[axis]) - point[axis] for axis in range(3)]
        along = offset[0] * self._sun[0] + offset[1] * self._sun[1] + offset[2] * self._sun[2]
        apart = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 - along**2
        return np.asarray((along > 0) & (apart < ball[3] ** 2))
