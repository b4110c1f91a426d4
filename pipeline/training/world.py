"""The other workers, if there are any: sums over all of them, through torch.distributed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["World"]


@dataclass(frozen=True)
class World:
    """This worker's rank among `size`, and the device on which it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all workers, on this worker's device."""
        values = values.to(self.device)
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their sums; a worker without any sample contributes zeros."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # One message for all: hundreds of small ones would wait for each other.
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters if parameter.grad is not None])
        dist.all_reduce(flat)
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)

    def share(self, count: int) -> range:
        """Which of `count` things are this worker's."""
        return range(self.rank, count, self.size)

    def wait(self) -> None:
        """Returns when every worker has come here."""
        if self.size > 1:
            dist.barrier()
