"""Result of a prediction: one label per pixel, and counts over the pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.prediction.streams import to_device

__all__ = ["Counted", "LabelMap", "Mosaic", "check_target", "count_bands", "to_label_map"]

# Labels and targets are bytes, so there are 256 possible ids.
_IDS = 256


@dataclass(frozen=True)
class LabelMap:
    """Prediction for one image.

    Attributes:
        labels: Most probable class of each pixel, the lowest id of equals, (H, W) uint8.
        confidence: Winning probability times 255, (H, W) uint8; None if the caller did not request it.
        mean_confidence: Mean winning probability over pixels, 0–1.
        mean_entropy: Mean Shannon entropy of the class probabilities over pixels, nats.
        class_pixels: Number of pixels of each class, (C,) int64.
        confusion: Number of pixels by target (rows) and label (columns), (C, C) int64, without pixels whose target is
            the ignore label; None without a target.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None
    mean_confidence: float
    mean_entropy: float
    class_pixels: NDArray[np.int64]
    confusion: NDArray[np.int64] | None


class Mosaic:
    """Label map of an image that is labeled rectangle by rectangle.

    Args:
        size: Height and width of the image, pixels.
        classes: Number of classes, C.
        confidence: Whether the parts have maps of the winning probability.
        labelled: Whether the parts have confusion matrices.
    """

    def __init__(self, size: tuple[int, int], classes: int, *, confidence: bool, labelled: bool) -> None:
        self._labels = np.empty(size, np.uint8)
        self._winning = np.empty(size, np.uint8) if confidence else None
        self._confidence = self._entropy = 0.0
        self._class_pixels = np.zeros(classes, np.int64)
        self._confusion = np.zeros((classes, classes), np.int64) if labelled else None

    def add(self, place: tuple[slice, slice], part: LabelMap) -> None:
        """Add the label map of a rectangle, given by its rows and columns of pixels."""
        self._labels[place] = part.labels
        if self._winning is not None and part.confidence is not None:
            self._winning[place] = part.confidence
        # Means become sums again, because rectangles differ in size.
        self._confidence += part.mean_confidence * part.labels.size
        self._entropy += part.mean_entropy * part.labels.size
        self._class_pixels += part.class_pixels
        if self._confusion is not None and part.confusion is not None:
            self._confusion += part.confusion

    def label_map(self) -> LabelMap:
        """Return the label map of the whole image, after every pixel was added once."""
        pixels = self._labels.size
        means = self._confidence / pixels, self._entropy / pixels
        return LabelMap(self._labels, self._winning, *means, self._class_pixels, self._confusion)


@dataclass(frozen=True)
class Counted:
    """Labels of an image and sums over its pixels, from which `to_label_map` makes a `LabelMap`.

    Attributes:
        labels: Most probable class of each pixel, (H, W) uint8.
        winning: Winning probability times 255, (H, W) uint8; None if the caller did not request it.
        total_confidence: Sum of the winning probability over pixels.
        total_entropy: Sum of the entropy over pixels, nats.
        pairs: Number of pixels by target (0 without a target) and label, (256, C) int64.
    """

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
    """Compute labels and counts from probabilities on their device, with one transfer to the host at the end.

    Args:
        bands: Pairs of first row and probabilities, (C, rows of the band, W), from top to bottom; they cover the image.
        size: Height and width of the image, pixels.
        classes: Number of classes, C.
        device: Device of the probabilities.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids, (H, W), to count the labels against; None: there is no target.
    """
    height, width = size
    labels = torch.empty((height, width), dtype=torch.uint8, device=device)
    winning = torch.empty((height if confidence else 0, width), dtype=torch.uint8, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    pairs = torch.zeros(_IDS * classes, dtype=torch.int64, device=device)
    targets = None if target is None else to_device(torch.from_numpy(np.require(target, requirements="W")), device)
    for top, probabilities in bands:
        band = slice(top, top + probabilities.shape[1])
        best, best_class = probabilities.max(dim=0)  # the first of equals
        labels[band] = best_class
        if confidence:
            winning[band] = (best * 255).round()
        sums += torch.stack([values.sum(dtype=torch.float64) for values in (best, torch.special.entr(probabilities))])
        # One histogram over target · C + label, without a transfer to the host per band.
        pair = best_class if targets is None else best_class + classes * targets[band].long()
        pairs += torch.bincount(pair.flatten(), minlength=_IDS * classes)
    return _to_host(labels, winning if confidence else None, sums, pairs)


def to_label_map(counted: Counted, *, labelled: bool, ignore_label: int) -> LabelMap:
    """Convert counts into the public `LabelMap`.

    Args:
        counted: Labels and sums over all pixels of the image.
        labelled: Whether the labels were counted against a target.
        ignore_label: Id of target pixels that count nowhere; may be less than C.

    Raises:
        ValueError: If the target has an id out of range.
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
    """Check that a target fits an image of `height` x `width` pixels; None always fits.

    Raises:
        ValueError: If the target has another size or type.
    """
    if target is not None and (target.shape != (height, width) or target.dtype != np.uint8):
        raise ValueError(f"target {target.shape} {target.dtype}, must be {(height, width)} uint8 as the image")


def _confusion(pairs: NDArray[np.int64], ignore_label: int) -> NDArray[np.int64]:
    """Return the confusion matrix (C, C) from pixels by target and label (256, C), without the ignore label."""
    classes = pairs.shape[1]
    # Targets from C on are errors, except for the ignore label; an ignore label below C empties its row.
    counting = np.arange(_IDS) != ignore_label
    if pairs[classes:][counting[classes:]].any():
        raise ValueError(f"a class id is not below {classes}")
    return pairs[:classes] * counting[:classes, None]


def _to_host(labels: Tensor, winning: Tensor | None, sums: Tensor, pairs: Tensor) -> Counted:
    """Copy all results to the host in one transfer, as bytes."""
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
