"""Geometry of the dilated front end: margin, output stride and score map sizes. It does not import torch.

Yu & Koltun 2016, Sec. 4: the front end has no padding, the image is reflected at its border, the output stride is 8.
"""

from __future__ import annotations

from model.prediction.geometry import Footprint

__all__ = ["DILATED", "FOOTPRINT", "MARGIN", "MIN_WINDOW", "OUTPUT_STRIDE", "front_end_cells", "score_map_size"]

# Name of the family of the networks of Yu & Koltun 2016, which files of format 1 hold.
DILATED = "dilated"
OUTPUT_STRIDE = 8
# Pixels that the valid convolutions of the front end remove on each side: 2 + 4 + 3*4 (conv1-3 at strides 1, 2, 4)
# + 3*8 (conv4) + 3*2*8 (conv5, dilation 2) + 3*4*8 (fc6, 7x7, dilation 4) = 186 pixels.
MARGIN = 186
FOOTPRINT = Footprint(stride=OUTPUT_STRIDE, halo=MARGIN, phase=OUTPUT_STRIDE, border="reflected")
# Side in pixels of a window with one score cell.
MIN_WINDOW = FOOTPRINT.min_window


def front_end_cells(pixels: int) -> int:
    """Return the number of score cells along one axis for a front-end input of `pixels` pixels.

    Pooling rounds up, as in Caffe: 1640 pixels (the KITTI release) give 159 cells, not 158.

    Raises:
        ValueError: If `pixels` is less than 373. A cell covers 380 pixels, but pooling rounds up.
    """
    if pixels < MIN_WINDOW - OUTPUT_STRIDE + 1:
        raise ValueError(f"a front end needs at least {MIN_WINDOW} pixels a side, got {pixels}: add the margin")
    # conv1-3, each followed by a pooling; then conv4, conv5 (dilation 2) and fc6 (dilation 4).
    size = pixels
    for convolutions in (2, 2, 3):
        size = -(-(size - 2 * convolutions) // 2)
    return size - 2 * 3 - 4 * 3 - 6 * 4


def score_map_size(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of cells that corner-anchored upsampling needs for an image's size in pixels.

    Cell (i, j) lies on pixel (8i, 8j). One more cell than the last pixel's is needed to interpolate that pixel.
    """
    return (height - 1) // OUTPUT_STRIDE + 2, (width - 1) // OUTPUT_STRIDE + 2
