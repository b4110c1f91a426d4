"""The paper's truncation (Sec. 3): max(·, 0)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["truncate"]


def truncate(maps: Tensor) -> Tensor:
    """max(maps, 0); where no gradient is recorded it overwrites `maps`, which spares a pass over fresh memory."""
    return functional.relu(maps, inplace=not torch.is_grad_enabled())
