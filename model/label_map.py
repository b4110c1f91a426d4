"""One label per pixel and what is counted over pixels: what the last step of any prediction comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.streams import to_device

__all__ = ["Counted", "LabelMap", "check_target", "count_bands", "to_label_map"]

# Labels and targets are bytes.
_IDS = 256


@dataclass(frozen=True)
class LabelMap:
    """The prediction for one image.

    Attributes:
        labels: (H, W) uint8, the most probable class of each pixel; of equals, the lowest id.
        confidence: (H, W) uint8, 255 times the winning probability, or None if it was not asked for.
        mean_confidence: mean winning probability over pixels, 0–1.
        mean_entropy: mean Shannon entropy of the class probabilities over pixels, in nats.
        class_pixels: (C,) int64, pixels of each class.
        confusion: (C, C) int64, pixels by target (rows) and label (columns) without those whose target is the ignore
            label, or None without a target.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    mean_confidence: float
    mean_entropy: float
    class_pixels: NDArray[np.int64]
    confusion: NDArray[np.int64] | None


@dataclass(frozen=True)
class Counted:
    """Labels, 255 times the winning probability, sums over pixels, pixels by target (0 if none) and label (256, C)."""

    labels: NDArray[np.uint8]
    winning: NDArray[np.uint8] | None
    total_confidence: float
    total_entropy: float
    pairs: NDArray[np.int64]


@torch.inference_mode()
def count_bands(
    bands: Iterable[tuple[int, Tensor]],
    size: tuple[int, int],
    classes: int,
    device: torch.device,
    *,
    confidence: bool,
    target: NDArray[np.uint8] | None,
) -> Counted:
    """Labels and counts from probabilities, on their device; one transfer to the host at the end.

    Args:
        bands: (first row, probabilities (C, rows of the band, W)) from top to bottom, which cover the image.
        size: height and width of the image, pixels.
        classes: C.
        device: of the probabilities.
        confidence: whether to keep the winning probability of each pixel.
        target: (H, W) class ids to count the labels against.
    """
    height, width = size
    labels = torch.empty((height, width), dtype=torch.uint8, device=device)
    winning = torch.empty((height if confidence else 0, width), dtype=torch.uint8, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    pairs = torch.zeros(_IDS * classes, dtype=torch.int64, device=device)
    targets = None if target is None else to_device(torch.from_numpy(np.require(target, requirements="W")), device)
    for top, probabilities in bands:
        band = slice(top, top + probabilities.shape[1])
        best, best_class = probabilities.max(dim=0)  # of equals, the first
        labels[band] = best_class
        if confidence:
            winning[band] = (best * 255).round()
        sums += torch.stack([values.sum(dtype=torch.float64) for values in (best, torch.special.entr(probabilities))])
        pair = best_class if targets is None else best_class + classes * targets[band].long()
        pairs += torch.bincount(pair.flatten(), minlength=_IDS * classes)
    return _to_host(labels, winning if confidence else None, sums, pairs)


def to_label_map(counted: Counted, *, labelled: bool, ignore_label: int) -> LabelMap:
    """What users get.

    Args:
        counted: over all pixels of the image.
        labelled: whether they were counted against a target.
        ignore_label: of target pixels that count nowhere; may lie below C.

    Raises:
        ValueError: if the target has an id out of range.
    """
    pixels = counted.labels.size
    return LabelMap(
        counted.labels,
        counted.winning,
        counted.total_confidence / pixels,
        counted.total_entropy / pixels,
        counted.pairs.sum(axis=0),
        _confusion(counted.pairs, ignore_label) if labelled else None,
    )


def check_target(target: NDArray[np.uint8] | None, height: int, width: int) -> None:
    """Of an image of this size in pixels.

    Raises:
        ValueError: if the target is of another size or type.
    """
    if target is not None and (target.shape != (height, width) or target.dtype != np.uint8):
        raise ValueError(f"target {target.shape} {target.dtype}, must be {(height, width)} uint8 as the image")


def _confusion(pairs: NDArray[np.int64], ignore_label: int) -> NDArray[np.int64]:
    """(256, C) pixels by target and label → (C, C)."""
    classes = pairs.shape[1]
    counting = np.arange(_IDS) != ignore_label
    if pairs[classes:][counting[classes:]].any():
        raise ValueError(f"a class id is not below {classes}")
    return pairs[:classes] * counting[:classes, None]


def _to_host(labels: Tensor, winning: Tensor | None, sums: Tensor, pairs: Tensor) -> Counted:
    """All in one transfer, as bytes."""
    parts = [sums, pairs, labels] if winning is None else [sums, pairs, labels, winning]
    data = torch.cat([part.flatten().view(torch.uint8) for part in parts]).cpu().numpy()
    sums_end = sums.nbytes
    pairs_end = sums_end + pairs.nbytes
    confidence, entropy = data[:sums_end].view(np.float64).tolist()
    maps = data[pairs_end:].reshape(-1, *labels.shape)
    return Counted(
        maps[0],
        None if winning is None else maps[1],
        confidence,
        entropy,
        data[sums_end:pairs_end].view(np.int64).reshape(_IDS, -1),
    )
