"""Views of an image for test-time averaging: several sizes, and mirror images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

__all__ = ["PLAIN", "View", "WorkingSize", "resize_image", "views"]

_LARGEST_SIDE = 10_000  # pixels; limits the working size in a file to 100 megapixels


@dataclass(frozen=True)
class WorkingSize:
    """Size to which every image is resized before training and prediction; exactly one attribute is given.

    Attributes:
        long_side: Length of the longer side in pixels; the other side keeps the aspect ratio.
        short_side: Length of the shorter side in pixels, likewise.
        size: Height and width in pixels.
    """

    long_side: int | None = None
    size: tuple[int, int] | None = None
    # Not in the text of a size, which is part of the digests of stored maps.
    short_side: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [each for each in (self.size, self.long_side, self.short_side) if each is not None]
        if len(given) != 1:
            raise ValueError("a working size is either a long side, a short side, or a height and a width")
        sides = given[0] if isinstance(given[0], tuple) else (given[0],)
        if not all(1 <= side <= _LARGEST_SIDE for side in sides):
            raise ValueError(f"a working size has sides of 1 to {_LARGEST_SIDE} pixels, got {given[0]}")

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels to which an image of this height and width is resized."""
        if self.size is not None:
            return self.size
        if self.short_side is not None:
            factor = self.short_side / min(height, width)
        else:
            factor = (self.long_side or 0) / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True)
class View:
    """View of an image: a size, and whether it is mirrored.

    Attributes:
        scale: Factor of the working size's height and width.
        mirrored: Whether left and right are exchanged.
        resize: Working size; None: the image's own size.
    """

    scale: float = 1.0
    mirrored: bool = False
    resize: WorkingSize | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels of this view of an image of the given height and width."""
        if self.resize is not None:
            height, width = self.resize.of(height, width)
        if self.scale == 1:
            return height, width
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this view of an image, (H, W, 3) uint8 → (H', W', 3) uint8: bilinear, anti-aliased if it shrinks."""
        image = resize_image(image, self.size(*image.shape[:2]))
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)


PLAIN = (View(),)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image, (H, W, 3) uint8, at another height and width: bilinear, anti-aliased if it shrinks."""
    if size == image.shape[:2]:
        return image
    # uint8 throughout: a float copy of a large image would take four times its memory.
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def views(scales: Sequence[float], *, flip: bool, resize: WorkingSize | None = None) -> tuple[View, ...]:
    """Return a view of each scale, and its mirror image if `flip`, smaller ones first."""
    mirrors = (False, True) if flip else (False,)
    return tuple(View(scale, mirrored, resize) for scale in sorted(scales) for mirrored in mirrors)
