"""Flat shapes that face the camera; figures, posts and signs are drawn on one, in meters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from demo.street.camera import NEAR, Floats
from demo.street.canvas import Canvas

__all__ = ["Billboard"]

_CORNERS = 20


class Billboard:
    """Upright plane that faces the camera, to draw flat shapes on.

    Its own coordinates are meters to the right of and above its foot, the point (x, ground, z).

    Args:
        canvas: Canvas to draw on.
        x, z: Position in meters.
        class_name: Label of what is drawn.
        lit: Share of the sun that reaches the object, from 0 to 1.
        ground: Height of the foot above the road in meters.

    Attributes:
        scale: Pixels per meter at this depth.
        light: Linear RGB factor (3,) by which colors are multiplied.
    """

    def __init__(self, canvas: Canvas, x: float, z: float, class_name: str, lit: float = 1.0, ground: float = 0.0):
        self._canvas = canvas
        self._class_name = class_name
        self._depth = max(NEAR, canvas.camera.depth(x, z))
        self._origin = canvas.camera.project([(x, ground, z)])[0]
        self.scale = canvas.camera.focal / self._depth
        self.light = canvas.light.on_figure(lit)

    def polygon(self, points: ArrayLike, colour: Floats, *, round_: float = 0.0, class_name: str | None = None) -> None:
        """Draw a polygon.

        Args:
            points: Corners (N, 2) in meters, right and up.
            colour: Linear RGB before lighting.
            round_: Strength of the shading from the sun's side, which makes a flat shape look round; 0: none.
            class_name: Label; None: that of the billboard.
        """
        outline = self._origin + np.asarray(points, np.float64) * [self.scale, -self.scale]
        name = class_name or self._class_name
        self._canvas.polygon(outline, colour * self.light, name, self._depth, round_)

    def ellipse(self, centre: Sequence[float], radii: Sequence[float], colour: Floats, *, round_: float = 0.0) -> None:
        """Draw an ellipse by its center and its two radii, in meters."""
        angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
        ring = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
        self.polygon(np.asarray(centre) + ring, colour, round_=round_)

    def ring(self, centre: Sequence[float], radii: Sequence[float], thickness: float, colour: Floats) -> None:
        """Draw an elliptic band whose outer edge has the given radii and which is `thickness` meters wide."""
        angles = np.linspace(0, 2 * math.pi, _CORNERS)
        turn = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outer = np.asarray(radii)
        inner = np.maximum(np.asarray(radii) - thickness, 0.2 * np.asarray(radii))
        path = np.asarray(centre) + np.concatenate([turn * outer, (turn * inner)[::-1]])
        self.polygon(path, colour)

    def limb(self, path: Sequence[Sequence[float]], width: float, colour: Floats, *, round_: float = 0.0) -> None:
        """Draw a polyline of the given width in meters, with rounded joints."""
        for start, end in itertools.pairwise(path):
            along = np.subtract(end, start)
            half = np.array([-along[1], along[0]]) / max(1e-6, math.hypot(*along)) * width / 2
            self.polygon([start + half, end + half, end - half, start - half], colour, round_=round_)
        for joint in path:
            self.ellipse(joint, (width / 2, width / 2), colour, round_=round_)
