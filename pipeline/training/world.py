"""The other workers, if there are any: sums over all of them, through torch.distributed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["World"]

_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """This worker's rank among `size`, the device on which it computes, and the group in which it waits."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient: dist.ProcessGroup | None = None

    @staticmethod
    def patient_group() -> dist.ProcessGroup:
        """A group for `wait`: one worker may be busy with storage for much longer than a step may take."""
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_PATIENCE)  # type: ignore[assignment]
        return group

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

    def agree(self, values: Sequence[int]) -> bool:
        """Whether all workers came with the same numbers; all get the same answer."""
        return len({tuple(texts) for texts in self.gather([str(value) for value in values])}) == 1

    def gather(self, own: Sequence[str]) -> list[list[str]]:
        """Everybody's texts, by rank."""
        if self.size == 1:
            return [list(own)]
        # As JSON in plain bytes: torch's own gathering of objects would unpickle what comes over the network.
        data = torch.frombuffer(bytearray(json.dumps(list(own)).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]), group=self.patient)
        longest = int(max(lengths))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(padded, functional.pad(data, (0, longest - len(data))), group=self.patient)
        return [json.loads(bytes(text[: int(n)].tolist())) for text, n in zip(padded, lengths, strict=True)]

    def wait(self) -> None:
        """Returns when every worker has come here, however long that takes: Ray ends the group if one is lost."""
        if self.size > 1:
            dist.barrier(group=self.patient)
