"""Class weights of the loss, computed from the class frequencies in the training labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.dilated.network import NetworkSpec
from model.prediction.geometry import OUTPUT_STRIDE
from pipeline.training.samples.sources import Images

__all__ = ["class_weights", "weights_from_counts"]


def class_weights(images: Images, spec: NetworkSpec, power: float) -> Tensor | None:
    """Return the (C,) class weights of all training labels; None for a power of 0, which leaves the loss unweighted.

    Args:
        images: Images and labels of the training set.
        spec: Specification of the network, which names the classes and the ignored label.
        power: Exponent of the inverse frequency, 0–1.
    """
    if power == 0:
        return None

    def count(index: int) -> NDArray[np.int64]:
        # One pixel in eight per axis, (H, W) -> (h, w): the loss at stride 8 uses the same pixels.
        label = images.label(index)[::OUTPUT_STRIDE, ::OUTPUT_STRIDE]
        return np.bincount(label[label != spec.ignore_label], minlength=len(spec.classes)).astype(np.int64)

    with ThreadPoolExecutor(8) as pool:
        return weights_from_counts(np.sum(list(pool.map(count, range(len(images)))), axis=0), power)


def weights_from_counts(counts: NDArray[np.int64], power: float) -> Tensor:
    """Return (median count / count)^power per class, scaled to a mean weight of 1 over all cells.

    Args:
        counts: (C,) number of labeled cells of each class.
        power: Exponent of the inverse frequency, 0–1.

    Returns:
        The (C,) float32 weights; a class without cells gets 0.
    """
    occurs = counts > 0
    weights = np.zeros(len(counts))
    weights[occurs] = (np.median(counts[occurs]) / counts[occurs]) ** power
    # The mean is taken over cells, not over classes: sum(weights * counts) / sum(counts) becomes 1.
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()
