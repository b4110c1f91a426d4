"""Geometry of score cells on an image: footprint of a network, reflection and windows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Footprint",
    "Window",
    "gather",
    "plan_windows",
    "reflect_indices",
]

Value = TypeVar("Value", np.uint8, np.float32)


def reflect_indices(size: int, before: int, after: int) -> NDArray[np.int64]:
    """Return the source index of each pixel of an axis that is reflected without repeating the edge (REFLECT_101).

    Reflection repeats as often as needed, as in OpenCV and unlike torch, because real images can be smaller than 187
    pixels. An axis of one pixel repeats that pixel.

    Args:
        size: Length of the axis, pixels.
        before: Number of reflected pixels before the first.
        after: Number of reflected pixels after the last.

    Returns:
        Indices from 0 to `size` - 1, (before + size + after,).
    """
    positions = np.arange(-before, size + after, dtype=np.int64)
    if size == 1:
        return np.zeros_like(positions)
    # The reflected axis has period 2·size - 2; its second half runs backward.
    folded = positions % (2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def gather(image: NDArray[Value], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[Value]:
    """Return `image[rows][:, columns]` of an (H, W) or (H, W, 3) array, in a sixth of the time of `np.ix_`."""
    return np.take(np.take(image, columns, axis=1), rows, axis=0)


@dataclass(frozen=True)
class Footprint:
    """Pixels that a score depends on, and how windows of an image must lie so that they give the scores of the whole.

    Args:
        stride: Pixels between neighboring cells.
        halo: Pixels that can change the score of cell i before the first and after the last of its `stride` pixels,
            which start at pixel `stride · i`; along each axis.
        phase: Windows start at multiples of this many pixels from the image's first pixel, because the network counts
            its strides from there; a multiple of the stride. With a reflected border it is the stride.
        border: Surroundings of the image: `reflected`, where the network has valid convolutions and consumes the halo,
            or `padded` by the network itself. A padded window is clipped at the image's border, so that only there the
            network's own padding shows, and every cell within a halo of another edge is dropped.

        overlap: None if a halo bounds what a score depends on, so that windows give the scores of the whole image.
            Else the pixels by which neighboring windows overlap: their probabilities are blended, and depend on the
            windows.
        tile: Height and width of every window in pixels, if the network takes no other; smaller ones are padded.

    Raises:
        ValueError: If a number is out of range.
    """

    stride: int
    halo: int
    phase: int
    border: Literal["reflected", "padded"]
    overlap: int | None = None
    tile: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.stride < 1 or self.halo < 0 or self.phase % self.stride or self.phase < 1:
            raise ValueError(f"a footprint has a phase that is a multiple of its stride, and a halo, got {self}")
        if self.border == "reflected" and self.phase != self.stride:
            raise ValueError(f"windows of a reflected image may start at any cell, got {self}")

    @property
    def margin(self) -> int:
        """Pixels that a window has on each side of its cells; with padding the halo, rounded up to the phase."""
        return self.halo if self.border == "reflected" else -(-self.halo // self.phase) * self.phase

    @property
    def min_window(self) -> int:
        """Side of the smallest window, pixels, margin included."""
        # Windows that overlap start at the next multiple of the phase, so they lose up to a phase.
        inside = 2 * self.phase if self.overlap else self.phase
        return 2 * self.margin + (self.overlap or 0) + inside

    @property
    def crop_margin(self) -> int:
        """Pixels on each side of a training crop that have no cells: the halo, if the border is reflected."""
        return self.halo if self.border == "reflected" else 0

    def check_crop(self, crop: int) -> None:
        """Refuse the side of a training crop, in pixels, that gives no whole number of cells.

        Raises:
            ValueError: If a padded crop is smaller than a cell, or another crop is not its margin and a multiple of the
                stride.
        """
        inside = crop - 2 * self.crop_margin
        if inside < self.stride or (self.border == "reflected" and inside % self.stride):
            kind = "a multiple of" if self.border == "reflected" else "at least"
            raise ValueError(f"crop {crop} is not {2 * self.crop_margin} plus {kind} {self.stride}")

    def sources(self, pixels: int, cells: int) -> NDArray[np.int64]:
        """Return the source pixel of each pixel from which windows of an axis are cut.

        Args:
            pixels: Length of the axis, pixels.
            cells: Number of cells along the axis.
        """
        if self.border == "padded":
            return np.arange(pixels, dtype=np.int64)
        return reflect_indices(pixels, self.halo, cells * self.stride + self.halo - pixels)


@dataclass(frozen=True)
class Window:
    """Rectangle of score cells.

    Attributes:
        row: First row of cells in the whole score map.
        column: First column of cells in the whole score map.
        rows: Number of rows of cells.
        columns: Number of columns of cells.
    """

    row: int
    column: int
    rows: int
    columns: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of the window's cells in the whole score map."""
        return slice(self.row, self.row + self.rows), slice(self.column, self.column + self.columns)

    def pixels(self, footprint: Footprint) -> tuple[slice, slice]:
        """Return the rows and columns of the pixels for these cells among `Footprint.sources`; ends may lie beyond."""
        return _pixels(self.row, self.rows, footprint), _pixels(self.column, self.columns, footprint)

    def kept(self, footprint: Footprint) -> tuple[slice, slice]:
        """Return the rows and columns of the window's cells among the scores of its pixels."""
        return _kept(self.row, self.rows, footprint), _kept(self.column, self.columns, footprint)


def plan_windows(rows: int, columns: int, max_window: int, footprint: Footprint) -> list[Window]:
    """Divide a score map into windows of at most `max_window` pixels per side, nearly equal in size.

    Without an overlap, only the margin, on two sides per window and axis, is computed twice.

    Args:
        rows: Rows of cells of the score map.
        columns: Columns of cells of the score map.
        max_window: Longest side of a window, pixels, margin included.
        footprint: Footprint of the front end.

    Returns:
        Windows by row, then by column.

    Raises:
        ValueError: If `max_window` cannot hold a single cell.
    """
    limits = footprint.tile or (max_window, max_window)
    return [
        Window(row, column, height, width)
        for row, height in _divide(rows, limits[0], footprint)
        for column, width in _divide(columns, limits[1], footprint)
    ]


def _divide(cells: int, limit: int, footprint: Footprint) -> list[tuple[int, int]]:
    """Divide an axis into (first cell, number of cells), for windows of at most `limit` pixels."""
    # Windows start at multiples of the phase, hence of this many cells.
    unit = footprint.phase // footprint.stride
    units = -(-cells // unit)
    most = (limit - 2 * footprint.margin) // footprint.phase
    # At the image's border, a padded window has no margin.
    if units <= most or (footprint.border == "padded" and cells * footprint.stride <= limit):
        return [(0, cells)]
    if limit < footprint.min_window:
        raise ValueError(f"a window of {limit} pixels holds no cell: use at least {footprint.min_window}")
    if footprint.overlap is None:
        parts = -(-units // most)
        edges = [min(cells, units * part // parts * unit) for part in range(parts + 1)]
        return [(start, end - start) for start, end in pairwise(edges)]
    # Equal windows, evenly spread; rounding up takes at most a unit of the overlap.
    step = most - -(-footprint.overlap // footprint.phase)
    gaps = -(-(units - most) // step)
    starts = [-(-(units - most) * gap // gaps) * unit for gap in range(gaps + 1)]
    return [(start, min(most * unit, cells - start)) for start in starts]


def _pixels(first: int, cells: int, footprint: Footprint) -> slice:
    """Return the pixels for `cells` cells from `first` on, margin included, among the sources of the axis."""
    start = first * footprint.stride
    end = start + cells * footprint.stride
    if footprint.border == "padded":
        return slice(max(0, start - footprint.margin), end + footprint.margin)
    return slice(start, end + 2 * footprint.margin)


def _kept(first: int, cells: int, footprint: Footprint) -> slice:
    """Return the place of `cells` cells from `first` on among the cells that the network gives for their pixels."""
    before = 0
    if footprint.border == "padded":
        before = first - max(0, first * footprint.stride - footprint.margin) // footprint.stride
    return slice(before, before + cells)
