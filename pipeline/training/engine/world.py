"""Communication between the workers of a run: sums, gathers and barriers through torch.distributed."""

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

# Timeout of barriers and gathers; much longer than that of a step's all-reduce.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """One worker's view of the group of workers; the default is a single worker on a CPU.

    Attributes:
        rank: Rank of this worker, 0 to size - 1.
        size: Number of workers.
        device: Device on which this worker computes.
        patient: Process group with a long timeout for barriers and gathers; None: the default group.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient: dist.ProcessGroup | None = None

    @staticmethod
    def barrier_group() -> dist.ProcessGroup:
        """Create a group with a timeout of six hours, as storage may keep one worker busy far longer than a step."""
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_PATIENCE)  # type: ignore[assignment]
        return group

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all workers, on this worker's device."""
        values = values.to(self.device)
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all workers; a worker without samples contributes zeros."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # One flat tensor and one all-reduce: each of hundreds of small messages would add its own latency.
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters if parameter.grad is not None])
        dist.all_reduce(flat)
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)

    def share(self, count: int) -> range:
        """Return the indices, out of `count`, that belong to this worker: every `size`-th from its rank on."""
        return range(self.rank, count, self.size)

    def all_equal(self, values: Sequence[int]) -> bool:
        """Return whether all workers passed the same numbers; every worker gets the same answer."""
        return len({tuple(texts) for texts in self.gather([str(value) for value in values])}) == 1

    def gather(self, own: Sequence[str]) -> list[list[str]]:
        """Return the texts of all workers, by rank."""
        if self.size == 1:
            return [list(own)]
        # JSON in plain bytes, because torch's gather of objects would unpickle data from the network.
        data = torch.frombuffer(bytearray(json.dumps(list(own)).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]), group=self.patient)
        # All gathered tensors must have one length: texts are padded to the longest.
        longest = int(max(lengths))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(padded, functional.pad(data, (0, longest - len(data))), group=self.patient)
        return [json.loads(bytes(text[: int(n)].tolist())) for text, n in zip(padded, lengths, strict=True)]

    def barrier(self) -> None:
        """Block until every worker arrives; the timeout may be long, as Ray ends the group if a worker is lost."""
        if self.size > 1:
            dist.barrier(group=self.patient)
