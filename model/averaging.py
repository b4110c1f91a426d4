"""One label map from several views of an image: the mean of their class probabilities at every pixel.

Pixel y of H is at (y + ½)·H'/H - ½ in a view of H' pixels, clamped to it, from the other side if the view is mirrored.
There its probabilities are interpolated as in `model.upsampling`: between the probabilities of cells (`grid`), or
between scores, before the softmax (`deconvolution`). At scale 1 these are the same pixels and the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.geometry import OUTPUT_STRIDE
from model.label_map import LabelMap, check_target, count_bands, to_label_map
from model.network import NetworkSpec, Upsampling
from model.upsampling import interpolated_cells
from model.views import View

__all__ = ["average_labels"]

# Of all classes at full resolution at a time: 16 MiB of float32 on the CPU, 256 MiB elsewhere.
_HOST_FLOATS, _DEVICE_FLOATS = 2**22, 2**26


@torch.inference_mode()
def average_labels(
    spec: NetworkSpec,
    views: Sequence[View],
    scores: Sequence[Tensor],
    size: tuple[int, int],
    *,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
) -> LabelMap:
    """Labels every pixel by the mean of the views' probabilities; the lowest id of equals.

    Args:
        spec: of the network.
        views: of one image.
        scores: of each view, (C, rows, columns) float32, finite; sizes differ, the device is one.
        size: height and width of the image, pixels.
        confidence: whether to keep the winning mean probability of each pixel.
        target: (H, W) class ids to count the labels against.

    Raises:
        ValueError: if the target is of another size or has an id out of range.
    """
    check_target(target, *size)
    seen = [_Seen.at(view, each, size, spec.upsampling) for view, each in zip(views, scores, strict=True)]
    device = scores[0].device
    counted = count_bands(_bands(seen, size), size, len(spec.classes), device, confidence=confidence, target=target)
    return to_label_map(counted, labelled=target is not None, ignore_label=spec.ignore_label)


@dataclass(frozen=True)
class _Axis:
    """For each pixel of the image the cell before it, and how far it is towards the next, 0–1."""

    cell: Tensor
    fraction: Tensor

    @classmethod
    def of(
        cls, pixels: int, view: int, mirrored: bool, cells: int, upsampling: Upsampling, device: torch.device
    ) -> _Axis:
        # In float64: at 50,000 pixels float32 has no more than 1/256 of a pixel.
        place = (torch.arange(pixels, dtype=torch.float64, device=device) + 0.5) * (view / pixels) - 0.5
        place = place.clamp(0, view - 1)
        if mirrored:
            place = view - 1 - place
        # Cell i sits on pixel 8i, or is centred on 8i + 3.5 behind a ring of zeros.
        offset, ring = (0.0, 0) if upsampling == "grid" else ((OUTPUT_STRIDE - 1) / 2, 1)
        place = (place - offset) / OUTPUT_STRIDE + ring
        cell = place.floor().clamp(max=cells - 2)
        return cls(cell.long(), (place - cell).float())


@dataclass(frozen=True)
class _Seen:
    """A view's cells, and where on them the pixels of the image are."""

    cells: Tensor
    down: _Axis
    across: _Axis
    upsampling: Upsampling

    @classmethod
    def at(cls, view: View, scores: Tensor, size: tuple[int, int], upsampling: Upsampling) -> _Seen:
        height, width = view.size(*size)
        cells = interpolated_cells(scores.float(), height, width, upsampling)
        down = _Axis.of(size[0], height, False, cells.shape[1], upsampling, scores.device)
        across = _Axis.of(size[1], width, view.mirrored, cells.shape[2], upsampling, scores.device)
        return cls(cells, down, across, upsampling)

    def band(self, rows: slice) -> Tensor:
        """Probabilities of some rows of pixels, (C, rows, W)."""
        cell, fraction = self.down.cell[rows], self.down.fraction[rows, None]
        lines = torch.lerp(self.cells[:, cell], self.cells[:, cell + 1], fraction)
        cell = self.across.cell
        pixels = torch.lerp(lines[..., cell], lines[..., cell + 1], self.across.fraction)
        return pixels if self.upsampling == "grid" else pixels.softmax(dim=0)


def _bands(seen: Sequence[_Seen], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, mean probabilities (C, rows of the band, W)) from top to bottom."""
    height, width = size
    cells = seen[0].cells
    floats = _HOST_FLOATS if cells.device.type == "cpu" else _DEVICE_FLOATS
    step = max(1, floats // (cells.shape[0] * width))
    for top in range(0, height, step):
        first, *others = (each.band(slice(top, top + step)) for each in seen)
        for other in others:
            first += other
        yield top, first / len(seen) if others else first
