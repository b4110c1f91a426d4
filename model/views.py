"""The same image in several sizes and mirrored: what test-time averaging shows to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

__all__ = ["PLAIN", "View", "views"]


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        scale: of its height and width.
        mirrored: whether left and right are exchanged.
    """

    scale: float = 1.0
    mirrored: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels of the view of an image of this size."""
        if self.scale == 1:
            return height, width
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 → (H', W', 3) uint8, bilinear, without aliasing where it shrinks."""
        height, width = image.shape[:2]
        size = self.size(height, width)
        if size != (height, width):
            # uint8 all the way: a float copy of a large image would take four times its memory.
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
            resized = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            image = resized[0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)


PLAIN = (View(),)


def views(scales: Sequence[float], *, flip: bool) -> tuple[View, ...]:
    """Each scale, and its mirror image if `flip`, smaller ones first."""
    return tuple(
        View(scale, mirrored) for scale in sorted(scales) for mirrored in ((False, True) if flip else (False,))
    )
