"""Image and label drawn together: whatever is painted leaves its class behind, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Canvas", "Colour", "Point", "smooth_noise"]

Point = tuple[float, float]
Colour = tuple[int, int, int]
# Drawn this much larger: area averages give a soft image, centre samples a label without mixed classes.
_OVERSAMPLE = 3


class Canvas:
    """A picture of `width` x `height` pixels and its label; coordinates are pixels, y down.

    Args:
        width: pixels.
        height: pixels.
        rng: for textures.
    """

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width, self.height, self.rng = width, height, rng
        size = (width * _OVERSAMPLE, height * _OVERSAMPLE)
        self._image, self._label = Image.new("RGB", size), Image.new("L", size)
        self._draw, self._mark = ImageDraw.Draw(self._image), ImageDraw.Draw(self._label)

    def polygon(self, points: Sequence[Point], colour: Colour, class_id: int | None) -> None:
        """Fills a polygon; `class_id` None paints over whatever is there without changing its class."""
        scaled = [(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in points]
        self._draw.polygon(scaled, fill=colour)
        if class_id is not None:
            self._mark.polygon(scaled, fill=class_id)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, class_id: int | None) -> None:
        """Fills an ellipse."""
        (x, y), (across, down) = centre, radii
        box = [each * _OVERSAMPLE for each in (x - across, y - down, x + across, y + down)]
        self._draw.ellipse(box, fill=colour)
        if class_id is not None:
            self._mark.ellipse(box, fill=class_id)

    def line(self, start: Point, end: Point, width: float, colour: Colour, class_id: int | None) -> None:
        """A straight stroke, at least one drawn pixel wide."""
        points = [(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in (start, end)]
        thick = max(1, round(width * _OVERSAMPLE))
        self._draw.line(points, fill=colour, width=thick)
        if class_id is not None:
            self._mark.line(points, fill=class_id, width=thick)

    def shade(self, points: Sequence[Point], strength: float) -> None:
        """Darkens a soft-edged polygon, as a shadow does; classes stay."""
        mask = Image.new("L", self._image.size)
        ImageDraw.Draw(mask).polygon(
            [(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in points], fill=round(255 * strength)
        )
        dark = Image.new("RGB", self._image.size, (18, 20, 34))
        self._image.paste(dark, mask=mask.filter(ImageFilter.GaussianBlur(2 * _OVERSAMPLE)))

    def texture(self, class_id: int, cells: int, strength: float) -> None:
        """Lays smooth brightness noise over all pixels of a class.

        Args:
            class_id: whose pixels.
            cells: blobs across the picture; many give grain, few give clouds.
            strength: of the brightness, 0–255.
        """
        noise = smooth_noise(self.rng, self._image.size[1], self._image.size[0], cells) * strength
        pixels = np.asarray(self._image).astype(np.float32)
        pixels += noise[:, :, None] * (np.asarray(self._label) == class_id)[:, :, None]
        self._image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))

    def gradient(self, top: Colour, bottom: Colour, class_id: int) -> None:
        """Fills everything from top to bottom colour."""
        share = np.linspace(0, 1, self._image.size[1])[:, None, None]
        column = np.array(top) * (1 - share) + np.array(bottom) * share
        full = np.broadcast_to(column, (self._image.size[1], self._image.size[0], 3))
        self._image.paste(Image.fromarray(full.astype(np.uint8)))
        self._label.paste(class_id, (0, 0, *self._label.size))

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """(H, W, 3) float32 RGB (0–255) and (H, W) uint8 classes, at the picture's own size."""
        fine = np.asarray(self._image).astype(np.float32)
        shape = (self.height, _OVERSAMPLE, self.width, _OVERSAMPLE, 3)
        middle = _OVERSAMPLE // 2
        label = np.asarray(self._label)[middle::_OVERSAMPLE, middle::_OVERSAMPLE]
        return fine.reshape(shape).mean(axis=(1, 3)), label.copy()


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """(height, width) noise of mean 0 and about unit deviation, with about `cells` blobs across."""
    rows = max(2, cells * height // width)
    coarse = Image.fromarray(rng.standard_normal((rows, max(2, cells))).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
