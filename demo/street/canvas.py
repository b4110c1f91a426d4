"""Image and label painted together: a shape that covers a pixel's color also covers its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from demo.street.camera import Camera, Floats
from demo.street.light import Light
from pipeline.data.label_spaces import label_space

__all__ = ["CLASS_IDS", "Canvas", "Region"]

CLASS_IDS = {name: index for index, name in enumerate(label_space("street_scenes").classes)}


@dataclass(frozen=True)
class Region:
    """Pixels inside an outline: a rectangle of the picture and a mask within it.

    Attributes:
        rows, columns: Rectangle in pixels, of size h x w.
        mask: Bool array (h, w), true for the pixels inside the outline.
    """

    rows: slice
    columns: slice
    mask: NDArray[np.bool_]

    def centres(self) -> tuple[Floats, Floats]:
        """Return row and column of pixel centers, (h, 1) and (1, w)."""
        rows = np.arange(self.rows.start, self.rows.stop, dtype=np.float32)[:, None] + 0.5
        columns = np.arange(self.columns.start, self.columns.stop, dtype=np.float32)[None, :] + 0.5
        return rows, columns


class Canvas:
    """Picture (H, W, 3) in linear RGB and its label (H, W).

    Args:
        camera: Camera, which gives the size of the picture.
        light: Light, which gives the haze.
    """

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.colour = np.zeros((camera.height, camera.width, 3), np.float32)
        self.label = np.zeros((camera.height, camera.width), np.uint8)

    def region(self, outline: ArrayLike) -> Region | None:
        """Return the visible pixels inside a polygon (N, 2) of columns and rows; None if there are none."""
        points = np.asarray(outline, np.float64)
        if len(points) < 3:
            return None
        left, top = np.floor(points.min(axis=0)).astype(int)
        right, bottom = np.ceil(points.max(axis=0)).astype(int) + 1
        left = max(0, left)
        top = max(0, top)
        right = min(self.camera.width, right)
        bottom = min(self.camera.height, bottom)
        if left >= right or top >= bottom:
            return None
        stencil = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(stencil).polygon((points - [left, top]).ravel().tolist(), fill=1)
        mask = np.asarray(stencil).astype(bool)
        return Region(slice(top, bottom), slice(left, right), mask) if mask.any() else None

    def paint(self, region: Region, colour: ArrayLike, class_name: str, depth: Floats | float) -> None:
        """Paint a region's color, blended with haze by depth, and its label.

        Args:
            region: Pixels to cover.
            colour: One linear RGB, or (h, w, 3) over the region's rectangle.
            class_name: Class of the `street_scenes` label space.
            depth: Distance in meters, for the haze; one number or (h, w).
        """
        clear = np.exp(-np.asarray(depth, np.float32) / np.float32(self.light.visibility))[..., None]
        hazy = np.asarray(colour, np.float32) * clear + self.light.haze * (1 - clear)
        place = (region.rows, region.columns)
        np.copyto(self.colour[place], hazy, where=region.mask[..., None])
        self.label[place][region.mask] = CLASS_IDS[class_name]

    def polygon(
        self, outline: ArrayLike, colour: ArrayLike, class_name: str, depth: float, round_: float = 0.0
    ) -> None:
        """Paint a polygon (N, 2) of columns and rows with one color.

        Args:
            outline: Corners in pixels.
            colour: Linear RGB.
            class_name: Class of the `street_scenes` label space.
            depth: Distance in meters, for the haze.
            round_: Strength of the shading from the sun's side, which makes a flat shape look round; 0: none.
        """
        region = self.region(outline)
        if region is None:
            return
        shade = np.asarray(colour, np.float32)
        if round_:
            # Brighten the side towards the sun and darken the other one by the same amount.
            side = np.sign(self.light.towards_sun[0]) or 1.0
            ramp = np.linspace(-side, side, region.mask.shape[1], dtype=np.float32)[None, :, None]
            shade = shade * (1 + np.float32(round_) * ramp)
        self.paint(region, shade, class_name, depth)

    def face(self, points: Sequence[Sequence[float]] | Floats, colour: ArrayLike, class_name: str) -> None:
        """Paint a flat polygon (N, 3) in meters with one color; the haze is that of its mean depth."""
        corners = np.asarray(points, np.float64)
        depths = [self.camera.depth(x, z) for x, _, z in corners.tolist()]
        self.polygon(self.camera.outline(corners), colour, class_name, max(0.0, float(np.mean(depths))))
