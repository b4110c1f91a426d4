"""A pinhole camera over a flat street: metres in the world to pixels in the picture."""

from __future__ import annotations

from dataclasses import dataclass

from demo.canvas import Point

__all__ = ["Camera"]


@dataclass(frozen=True)
class Camera:
    """Looks along the street.

    Attributes:
        focal: focal length, pixels.
        centre: column of the vanishing point, pixels.
        horizon: its row, pixels.
        eye: height of the camera, metres.
    """

    focal: float
    centre: float
    horizon: float
    eye: float

    def point(self, x: float, height: float, z: float) -> Point:
        """A point `x` metres right of the camera, `height` above the ground, `z` ahead."""
        return self.centre + self.focal * x / z, self.horizon + self.focal * (self.eye - height) / z

    def scale(self, z: float) -> float:
        """Pixels per metre at `z` metres."""
        return self.focal / z

    def ground(self, left: float, right: float, near: float, far: float) -> list[Point]:
        """Outline of a strip of the ground."""
        corners = ((left, near), (left, far), (right, far), (right, near))
        return [self.point(x, 0, z) for x, z in corners]

    def wall(self, x: float, bottom: float, top: float, near: float, far: float) -> list[Point]:
        """Outline of an upright wall along the street."""
        corners = ((bottom, near), (top, near), (top, far), (bottom, far))
        return [self.point(x, height, z) for height, z in corners]

    def front(self, left: float, right: float, bottom: float, top: float, z: float) -> list[Point]:
        """Outline of an upright rectangle that faces the camera."""
        corners = ((left, bottom), (left, top), (right, top), (right, bottom))
        return [self.point(x, height, z) for x, height in corners]
