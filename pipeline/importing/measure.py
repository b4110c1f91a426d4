"""Measurement of a program: stride, sizes that it takes, and how far away pixels can change a score.

A halo is measured, not proved: it holds for the sizes and the pixels that were tried. Images are long and thin, because
convolutions reach as far along one axis whatever the other is, and thin images are cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError

__all__ = ["MULTIPLES", "Measured", "find_bound", "find_sizes"]

# Scores of a network: (N, 3, H, W) of 0–255 → (N, C, h, w).
Scores = Callable[[Tensor], Tensor]
_LENGTHS = (512, 1024, 2048)  # pixels
_LARGEST_PHASE = 64  # pixels
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
# Share of the spread of scores below which a difference is rounding: between equal shapes, and between different ones.
_EQUAL_SHAPES, _OTHER_SHAPES = 1e-6, 1e-4


@dataclass(frozen=True)
class Measured:
    """Sizes of a program, in pixels.

    Attributes:
        classes: Channels of its output.
        stride: Pixels between neighboring cells.
        multiple_of: Number of which height and width must be a multiple.
        minimum: Least height and width.
    """

    classes: int
    stride: int
    multiple_of: int
    minimum: int


def find_sizes(scores: Scores, least: int, multiple_of: int | None, fixed: tuple[int, int] | None) -> Measured:
    """Find the output's channels and stride, and the sizes that the program takes.

    Args:
        scores: Program without padding.
        least: Least height and width that the program states.
        multiple_of: Number that the source states; None: it is found.
        fixed: Only height and width that the program takes; None: others too.

    Raises:
        ConfigError: If the output is no map, or no size works.
    """
    height, width = fixed or (_round_up(max(least, 128), 64), _round_up(max(least, 192), 64))
    made = _attempt(scores, height, width)
    if made is None or made.ndim != 4 or made.shape[0] != 1:
        shape = None if made is None else tuple(made.shape)
        raise ConfigError(
            f"the network's output for one image of {height}×{width} pixels is {shape}, no map of (1, classes, rows, "
            "columns): name the output with --output-key"
        )
    classes, rows, columns = made.shape[1:]
    stride = height // rows
    if stride * rows != height or stride * columns != width:
        raise ConfigError(f"the map of {height}×{width} pixels has {rows}×{columns} cells, which is no whole stride")
    if fixed is not None:
        return Measured(classes, stride, 1, 1)
    candidates = MULTIPLES if multiple_of is None else (multiple_of,)
    for multiple in candidates:
        minimum = _round_up(least, multiple)
        sizes = [(height + multiple, width + 3 * multiple), (height + 5 * multiple, width + multiple)]
        if all(_has_ceil_cells(scores, size, stride) for size in sizes) and (
            _has_ceil_cells(scores, (minimum, minimum), stride)
        ):
            return Measured(classes, stride, multiple, minimum)
    raise ConfigError("the network takes no multiple of 1 to 64 pixels that was tried: give --fixed HEIGHT WIDTH")


def find_bound(scores: Scores, unit: int, least: int) -> tuple[int, int] | None:
    """Find the phase and the halo of a program, in pixels.

    Args:
        scores: Program without padding.
        unit: Least common multiple of stride and `multiple_of`, pixels.
        least: Least height and width.

    Returns:
        Phase and halo; None if a score depends on everything that was tried.
    """
    thin = _round_up(max(least, 64), _LARGEST_PHASE)
    for length in _LENGTHS:
        bounds = [_bound_along(scores, axis, _round_up(length, _LARGEST_PHASE), thin, unit) for axis in (2, 3)]
        if all(bound is not None for bound in bounds):
            phases, halos = zip(*(bound for bound in bounds if bound is not None), strict=True)
            return math.lcm(*phases), max(halos)
    return None


def _bound_along(scores: Scores, axis: int, length: int, thin: int, unit: int) -> tuple[int, int] | None:
    """Find phase and halo along one axis in images of a length."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, length, thin) if axis == 2 else (1, 3, thin, length)
    image, other = (torch.randint(0, 256, shape, generator=generator).float() for _ in range(2))
    whole = scores(image)
    stride = length // whole.shape[axis]
    middle = length // 2 // _LARGEST_PHASE * _LARGEST_PHASE

    spread = float((whole.amax(dim=(2, 3)) - whole.amin(dim=(2, 3))).max())
    before = whole.narrow(axis, middle // stride, _LARGEST_PHASE // stride)

    def unchanged(changed: Tensor, shift: int = 0) -> bool:
        """Return whether the cells in the middle are those of the whole image, `shift` pixels earlier."""
        now = scores(changed).narrow(axis, (middle - shift) // stride, _LARGEST_PHASE // stride)
        rounding = _OTHER_SHAPES if shift else _EQUAL_SHAPES
        return bool((now - before).abs().max() <= rounding * spread)

    def bounded_by(halo: int) -> bool:
        """Return whether no pixel further away than the halo changes a cell in the middle."""
        near = torch.zeros(length, dtype=torch.bool)
        near[middle - halo : middle + _LARGEST_PHASE + halo] = True
        near = near.view(-1, 1) if axis == 2 else near
        # Dark pixels change means, drawn ones change everything else.
        return all(unchanged(torch.where(near, image, far)) for far in (torch.zeros_like(image), other))

    room = min(middle, length - middle - _LARGEST_PHASE) - _LARGEST_PHASE
    if not bounded_by(room):
        return None
    # Steps of a stride, from whose multiples windows are made anyway.
    low, high = -1, room // stride
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if bounded_by(half * stride) else (half, high)
    high *= stride
    phase = unit
    while phase <= _LARGEST_PHASE:
        # A cut that starts at a multiple of the phase gives the same scores, as far as its border does not show.
        if high <= middle - phase and unchanged(image.narrow(axis, phase, length - phase), phase):
            return phase, high
        phase *= 2
    return None


def _has_ceil_cells(scores: Scores, size: tuple[int, int], stride: int) -> bool:
    """Return whether the program takes a size, and gives a cell for every stride that begins within the image."""
    made = _attempt(scores, *size)
    return made is not None and tuple(made.shape[2:]) == tuple(-(-side // stride) for side in size)


def _attempt(scores: Scores, height: int, width: int) -> Tensor | None:
    """Return the scores of a drawn image; None if the program refuses its size."""
    image = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()
    try:
        return scores(image)
    except (RuntimeError, ValueError, IndexError, AssertionError):
        return None


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
