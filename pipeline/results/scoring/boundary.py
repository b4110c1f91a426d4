"""Boundary IoU (Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021).

IoU of large things hardly moves when their outline is wrong. Boundary IoU counts only the pixels near an outline: those
of a class that lie within a distance of another class, or of the image's edge, in the label or in the mask.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["boundary_counts", "boundary_region", "boundary_width"]

_DIAGONAL_SHARE = 0.02


def boundary_width(height: int, width: int) -> int:
    """Pixels on each side of an outline that count: 2% of the image's diagonal, as published, and 1 at least."""
    return max(1, round(_DIAGONAL_SHARE * math.hypot(height, width)))


def boundary_region(ids: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Pixels within a distance of a pixel of another id, or of the outside.

    The same as what erosion by `distance` steps of a 3×3 square takes from the region of each id, for all ids at once.

    Args:
        ids: (H, W).
        distance: in pixels, diagonal steps counting as one; at least 1.

    Returns:
        (H, W).
    """
    height, width = ids.shape
    region = np.ones((height, width), np.bool_)
    side = 2 * distance + 1
    if side > height or side > width:
        return region
    # Changes from one pixel to the next are summed along lines: a window without any holds one id alone.
    across = _in_windows(ids[:, 1:] != ids[:, :-1], side - 1, axis=1)
    down = _in_windows(ids[1:] != ids[:-1], side - 1, axis=0)[:, distance : width - distance]
    region[distance : height - distance, distance : width - distance] = (
        _in_windows(across > 0, side, axis=0) + down
    ) > 0
    return region


def boundary_counts(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_label: int = 255
) -> NDArray[np.int64]:
    """Pixels of the boundary regions of each class.

    The ignore label has outlines like a class, since published labels draw it around things; its pixels count nowhere.

    Args:
        target: (H, W) class ids, or `ignore_label`.
        predicted: (H, W) class ids.
        classes: C.
        ignore_label: may lie below C.

    Returns:
        (3, C): in the mask's regions, in the label's, and in both at once with the same class.
    """
    distance = boundary_width(*target.shape)
    valid = target != ignore_label
    of_target = boundary_region(target, distance) & valid
    of_mask = boundary_region(predicted, distance) & valid
    both = of_target & of_mask & (target == predicted)
    chosen = predicted[of_mask], target[of_target], target[both]
    return np.stack([np.bincount(each, minlength=classes) for each in chosen]).astype(np.int64)


def _in_windows(values: NDArray[np.bool_], side: int, axis: int) -> NDArray[np.int32]:
    """How many are true in each window of `side` of them along an axis."""
    lines = np.moveaxis(values, axis, 0)
    sums = np.zeros((len(lines) + 1, lines.shape[1]), np.int32)
    np.cumsum(lines, axis=0, out=sums[1:])
    return np.moveaxis(sums[side:] - sums[:-side], 0, axis)
