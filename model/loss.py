"""Softmax loss over the valid cells (reference code: softmax_loss_layer.cpp, normalisation VALID)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["mean_loss", "summed_loss", "valid_weight"]


def summed_loss(
    scores: Tensor, target: Tensor, ignore_label: int = 255, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropy over valid cells, and their number (their total weight, if classes have weights).

    The two travel apart because a batch spread over workers is normalised by the valid cells of all of them.

    Args:
        scores: (N, C, h, w), before softmax.
        target: (N, h, w), class ids, `ignore_label` where nothing is known.
        ignore_label: cells that count nowhere.
        weights: (C,) weight of a cell by its class; None for equal ones, as in the paper.

    Returns:
        The sum and the total weight, scalars of float32.
    """
    total = functional.cross_entropy(scores.float(), target.long(), weights, ignore_index=ignore_label, reduction="sum")
    return total, valid_weight(target, ignore_label, weights)


def valid_weight(target: Tensor, ignore_label: int = 255, weights: Tensor | None = None) -> Tensor:
    """What a batch's summed loss is divided by: its valid cells, each with the weight of its class."""
    valid = target[target != ignore_label].long()
    return torch.tensor(float(valid.numel())) if weights is None else weights[valid].sum()


def mean_loss(scores: Tensor, target: Tensor, ignore_label: int = 255) -> Tensor:
    """Mean cross entropy over valid cells; 0 with zero gradients, not NaN, when no cell is valid."""
    total, valid = summed_loss(scores, target, ignore_label)
    valid = valid.to(total.device)
    return total / torch.where(valid > 0, valid, 1.0)
