"""Layers that the front end and the context module share: ReLU, and dropout with a generator per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SampleDropout", "relu"]


class SampleDropout(nn.Module):
    """Dropout of channel values during training, which scales the other values up, as `torch.nn.Dropout`.

    Args:
        probability: Probability of dropping a value, at least 0 and less than 1.

    Attributes:
        generators: Random generator of each sample of the next batch, in the order of the batch. None: torch's global
            generator, which makes a mask depend on the batch and on the worker.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generators: Sequence[torch.Generator] | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps, (N, C, H, W), with values dropped in training mode, else unchanged.

        Raises:
            ValueError: If there are generators, but not one for each sample.
        """
        if self.generators is None or not self.training or self.probability == 0:
            return functional.dropout(maps, self.probability, self.training)
        if len(self.generators) != len(maps):
            raise ValueError(f"{len(self.generators)} generators for a batch of {len(maps)} samples")
        kept = 1 - self.probability
        # Some kernels draw in memory order. This mask is contiguous, so values are drawn in C, H, W order for every
        # memory format of the maps.
        mask = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
        for values, generator in zip(mask, self.generators, strict=True):
            values.bernoulli_(kept, generator=generator)
        return maps * mask.div_(kept)


def relu(maps: Tensor) -> Tensor:
    """Return max(maps, 0); without gradients it overwrites `maps`, which saves a pass over new memory."""
    return functional.relu(maps, inplace=not torch.is_grad_enabled())
