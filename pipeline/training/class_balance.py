"""Weights of classes in the loss, from how often they occur in the training labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.geometry import OUTPUT_STRIDE
from model.network import NetworkSpec
from pipeline.training.sources import Images

__all__ = ["class_weights", "weights_from_counts"]


def class_weights(images: Images, spec: NetworkSpec, power: float) -> Tensor | None:
    """(C,) weights counted over all labels at stride 8, where the loss looks; None for a power of 0."""
    if power == 0:
        return None

    def count(index: int) -> NDArray[np.int64]:
        label = images.label(index)[::OUTPUT_STRIDE, ::OUTPUT_STRIDE]
        return np.bincount(label[label != spec.ignore_label], minlength=len(spec.classes)).astype(np.int64)

    with ThreadPoolExecutor(8) as pool:
        return weights_from_counts(np.sum(list(pool.map(count, range(len(images)))), axis=0), power)


def weights_from_counts(counts: NDArray[np.int64], power: float) -> Tensor:
    """(median count / count) to `power`, scaled so that the mean cell weighs 1; a class without cells gets 0."""
    occurs = counts > 0
    weights = np.zeros(len(counts))
    weights[occurs] = (np.median(counts[occurs]) / counts[occurs]) ** power
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()
