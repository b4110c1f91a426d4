"""A pinhole camera over a street: metres to pixels and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NEAR", "Camera", "Floats"]

Floats = NDArray[np.floating]
NEAR = 0.6  # metres; what is nearer is cut off


@dataclass(frozen=True)
class Camera:
    """Stands in the street at z = 0 and looks along +z; x goes right, y up, all in metres; road level is y = 0.

    Attributes:
        width, height: of the picture in pixels.
        focal: focal length in pixels.
        horizon: row of the horizon.
        elevation: metres above the road.
        x: metres right of the road's middle.
        yaw: radians to the right.
    """

    width: int
    height: int
    focal: float
    horizon: float
    elevation: float
    x: float
    yaw: float

    def depth(self, x: float, z: float) -> float:
        """Metres along the optical axis."""
        return (x - self.x) * math.sin(self.yaw) + z * math.cos(self.yaw)

    def project(self, points: ArrayLike) -> Floats:
        """(N, 3) metres, all in front of the camera → (N, 2) column and row in pixels."""
        return self._to_pixels(self._turn(points))

    def outline(self, points: ArrayLike) -> Floats:
        """Projects a polygon (N, 3), cut at the near plane; (M, 2) pixels, M = 0 if it lies behind."""
        turned = self._turn(points)
        kept: list[Floats] = []
        for here, there in zip(turned, np.roll(turned, -1, axis=0), strict=True):
            if here[2] >= NEAR:
                kept.append(here)
            if (here[2] >= NEAR) != (there[2] >= NEAR):
                kept.append(here + (there - here) * (NEAR - here[2]) / (there[2] - here[2]))
        return self._to_pixels(np.array(kept)) if len(kept) >= 3 else np.empty((0, 2))

    def rays(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats, Floats]:
        """Directions (x, y, z) through pixels, one metre deep; y has the shape of `rows`, x and z of `columns`."""
        across = (columns - self.width / 2) / self.focal
        x = across * math.cos(self.yaw) + math.sin(self.yaw)
        z = math.cos(self.yaw) - across * math.sin(self.yaw)
        return x, (self.horizon - rows) / self.focal, z

    def _turn(self, points: ArrayLike) -> Floats:
        x, y, z = np.asarray(points, np.float64).T
        across = (x - self.x) * math.cos(self.yaw) - z * math.sin(self.yaw)
        depth = (x - self.x) * math.sin(self.yaw) + z * math.cos(self.yaw)
        return np.stack([across, y - self.elevation, depth], axis=1)

    def _to_pixels(self, turned: Floats) -> Floats:
        across, up, depth = turned.T
        column = self.width / 2 + self.focal * across / depth
        return np.stack([column, self.horizon - self.focal * up / depth], axis=1)
