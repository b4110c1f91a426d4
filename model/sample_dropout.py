"""Dropout whose mask is a function of the sample: the same in any batch, on any worker."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SampleDropout"]


class SampleDropout(nn.Module):
    """Drops channel values while training, scaling the others up, as `torch.nn.Dropout`.

    Args:
        probability: of dropping a value, from 0 to below 1.

    Attributes:
        generators: one for each sample of the next batch, drawn from in the order of the batch; None draws from
            torch's global one, which makes a mask depend on the batch and on the worker.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generators: Sequence[torch.Generator] | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape.

        Raises:
            ValueError: if there are generators, but not one for each sample.
        """
        if self.generators is None or not self.training or self.probability == 0:
            return functional.dropout(maps, self.probability, self.training)
        if len(self.generators) != len(maps):
            raise ValueError(f"{len(self.generators)} generators for a batch of {len(maps)} samples")
        kept = 1 - self.probability
        # Drawn in C, H, W order whatever the memory format of the maps: some kernels draw in memory order.
        mask = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
        for values, generator in zip(mask, self.generators, strict=True):
            values.bernoulli_(kept, generator=generator)
        return maps * mask.div_(kept)
