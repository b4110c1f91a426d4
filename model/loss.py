"""Softmax loss over the valid cells (reference code: softmax_loss_layer.cpp, normalisation VALID)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["mean_loss", "summed_loss"]


def summed_loss(scores: Tensor, target: Tensor, ignore_label: int = 255) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropy over valid cells, and their number.

    The two travel apart because a batch spread over workers is normalised by the valid cells of all of them.

    Args:
        scores: (N, C, h, w), before softmax.
        target: (N, h, w), class ids, `ignore_label` where nothing is known.
        ignore_label: cells that count nowhere.

    Returns:
        The sum (scalar, float32) and the count of valid cells (scalar, int64).
    """
    total = functional.cross_entropy(scores.float(), target.long(), ignore_index=ignore_label, reduction="sum")
    return total, (target != ignore_label).sum()


def mean_loss(scores: Tensor, target: Tensor, ignore_label: int = 255) -> Tensor:
    """Mean cross entropy over valid cells; 0 with zero gradients, not NaN, when no cell is valid."""
    total, valid = summed_loss(scores, target, ignore_label)
    return total / valid.clamp(min=1)
