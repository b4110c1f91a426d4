"""Truncation, the paper's word for ReLU (Sec. 3): max(·, 0)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["truncate"]


def truncate(maps: Tensor) -> Tensor:
    """Return max(maps, 0); without gradients it overwrites `maps`, which saves a pass over new memory."""
    return functional.relu(maps, inplace=not torch.is_grad_enabled())
