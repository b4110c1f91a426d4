"""Label map of an image from several views: the mean of their class probabilities at every pixel.

Pixel y of H lies at (y + ½)·H'/H - ½ in a view of H' pixels, clamped to the view. In a mirrored view, positions along
the mirrored axis count from the opposite side. The probabilities at that position are interpolated as in
`model.prediction.upsampling`: between the probabilities of cells, or between scores, before the softmax. At scale 1 the
positions and the numbers are those of `model.prediction.upsampling`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.network import NetworkSpec
from model.prediction.label_map import LabelMap, check_target, count_bands, to_label_map
from model.prediction.upsampling import Upsampling, interpolated_cells
from model.prediction.views import View

__all__ = ["average_labels"]

# Floats of a band of pixel rows, over all classes, per view: 16 MiB of float32 on the CPU, 256 MiB elsewhere.
_HOST_FLOATS = 2**22
_DEVICE_FLOATS = 2**26


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
    """Label every pixel with the class of the highest mean probability over the views; the lowest id wins a tie.

    Args:
        spec: Description of the network (classes, upsampling, ignore label).
        views: Views of one image.
        scores: Score map of each view, (C, rows, columns) float32, finite. Sizes may differ; all are on one device.
        size: Height and width of the image, pixels.
        confidence: Whether to keep the winning mean probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: no confusion matrix.

    Raises:
        ValueError: If the target has another size or type, or an id out of range.
    """
    check_target(target, *size)
    seen = [_Seen.at(view, each, size, spec.upsampling) for view, each in zip(views, scores, strict=True)]
    device = scores[0].device
    counted = count_bands(_bands(seen, size), size, len(spec.classes), device, confidence=confidence, target=target)
    return to_label_map(counted, labelled=target is not None, ignore_label=spec.ignore_label)


@dataclass(frozen=True)
class _Axis:
    """Positions of the image's pixels between the cells of a view, along one axis.

    Attributes:
        cell: Index of the cell before each pixel, (pixels,) int64.
        fraction: Distance of each pixel from that cell, in cells, 0–1, (pixels,) float32.
    """

    cell: Tensor
    fraction: Tensor

    @classmethod
    def of(
        cls, pixels: int, view: int, mirrored: bool, cells: int, upsampling: Upsampling, device: torch.device
    ) -> _Axis:
        """Return the positions of `pixels` image pixels in a view of `view` pixels with `cells` cells."""
        # float64, because float32 resolves only 1/256 of a pixel at 50,000 pixels.
        place = (torch.arange(pixels, dtype=torch.float64, device=device) + 0.5) * (view / pixels) - 0.5
        place = place.clamp(0, view - 1)
        if mirrored:
            place = view - 1 - place
        place = (place - upsampling.anchor) / upsampling.stride + upsampling.before
        # The last pixel interpolates between the last two cells, with a fraction of up to 1.
        cell = place.floor().clamp(max=cells - 2)
        return cls(cell.long(), (place - cell).float())


@dataclass(frozen=True)
class _Seen:
    """Cells of a view, and the positions of the image's pixels between them.

    Attributes:
        cells: Probabilities or scores, border included, (C, rows, columns) float32.
        down: Positions of the pixel rows.
        across: Positions of the pixel columns.
        upsampling: Description of the upsampling.
    """

    cells: Tensor
    down: _Axis
    across: _Axis
    upsampling: Upsampling

    @classmethod
    def at(cls, view: View, scores: Tensor, size: tuple[int, int], upsampling: Upsampling) -> _Seen:
        """Locate an image of `size` (height and width in pixels) on the score map of one of its views."""
        height, width = view.size(*size)
        cells = interpolated_cells(scores.float(), height, width, upsampling)
        down = _Axis.of(size[0], height, False, cells.shape[1], upsampling, scores.device)
        across = _Axis.of(size[1], width, view.mirrored, cells.shape[2], upsampling, scores.device)
        return cls(cells, down, across, upsampling)

    def band(self, rows: slice) -> Tensor:
        """Return the class probabilities of some pixel rows of the image, (C, rows, W)."""
        # Down, then across: (C, r, c) -> (C, rows, c) -> (C, rows, W).
        cell = self.down.cell[rows]
        fraction = self.down.fraction[rows, None]
        lines = torch.lerp(self.cells[:, cell], self.cells[:, cell + 1], fraction)
        cell = self.across.cell
        pixels = torch.lerp(lines[..., cell], lines[..., cell + 1], self.across.fraction)
        return pixels if self.upsampling.interpolates == "probabilities" else pixels.softmax(dim=0)


def _bands(seen: Sequence[_Seen], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, mean probabilities (C, rows of the band, W)) from top to bottom."""
    height, width = size
    cells = seen[0].cells
    floats = _HOST_FLOATS if cells.device.type == "cpu" else _DEVICE_FLOATS
    step = max(1, floats // (cells.shape[0] * width))
    for top in range(0, height, step):
        first, *others = (each.band(slice(top, top + step)) for each in seen)
        # In place: the sum needs no further tensor of a band's size.
        for other in others:
            first += other
        yield top, first / len(seen) if others else first
