"""Pinhole camera over a street: meters to pixels and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NEAR", "Camera", "Floats"]

Floats = NDArray[np.floating]
NEAR = 0.6  # meters; anything nearer to the camera is clipped


@dataclass(frozen=True)
class Camera:
    """Camera in the street at z = 0 that looks along +z.

    x points right and y up, all in meters; the road's surface is y = 0.

    Attributes:
        width, height: Size of the picture in pixels.
        focal: Focal length in pixels.
        horizon: Row of the horizon in pixels.
        elevation: Height above the road in meters.
        x: Offset to the right of the road's middle in meters.
        yaw: Rotation to the right in radians.
    """

    width: int
    height: int
    focal: float
    horizon: float
    elevation: float
    x: float
    yaw: float

    def depth(self, x: float, z: float) -> float:
        """Return the distance along the optical axis in meters."""
        return (x - self.x) * math.sin(self.yaw) + z * math.cos(self.yaw)

    def project(self, points: ArrayLike) -> Floats:
        """Project points (N, 3) in meters, all in front of the camera, to (N, 2) column and row in pixels."""
        return self._to_pixels(self._turn(points))

    def outline(self, points: ArrayLike) -> Floats:
        """Project a polygon (N, 3), clipped at the near plane, to (M, 2) pixels; M = 0 if it lies behind the camera."""
        turned = self._turn(points)
        kept: list[Floats] = []
        for here, there in zip(turned, np.roll(turned, -1, axis=0), strict=True):
            if here[2] >= NEAR:
                kept.append(here)
            # The edge crosses the near plane: add the point where it does.
            if (here[2] >= NEAR) != (there[2] >= NEAR):
                kept.append(here + (there - here) * (NEAR - here[2]) / (there[2] - here[2]))
        return self._to_pixels(np.array(kept)) if len(kept) >= 3 else np.empty((0, 2))

    def rays(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats, Floats]:
        """Return directions (x, y, z) through pixels, scaled to a depth of one meter.

        Args:
            rows: Rows of pixels.
            columns: Columns of pixels.

        Returns:
            x and z in the shape of `columns`, and y in the shape of `rows`.
        """
        across = (columns - self.width / 2) / self.focal
        x = across * math.cos(self.yaw) + math.sin(self.yaw)
        z = math.cos(self.yaw) - across * math.sin(self.yaw)
        return x, (self.horizon - rows) / self.focal, z

    def _turn(self, points: ArrayLike) -> Floats:
        """Transform world coordinates (N, 3) into the camera's: right, up and depth in meters."""
        x, y, z = np.asarray(points, np.float64).T
        across = (x - self.x) * math.cos(self.yaw) - z * math.sin(self.yaw)
        depth = (x - self.x) * math.sin(self.yaw) + z * math.cos(self.yaw)
        return np.stack([across, y - self.elevation, depth], axis=1)

    def _to_pixels(self, turned: Floats) -> Floats:
        """Divide camera coordinates (N, 3) by depth; return column and row (N, 2)."""
        across, up, depth = turned.T
        column = self.width / 2 + self.focal * across / depth
        return np.stack([column, self.horizon - self.focal * up / depth], axis=1)
