"""Softmax loss over the valid cells (reference code: softmax_loss_layer.cpp, normalization VALID)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["mean_loss", "summed_loss", "valid_weight"]


def summed_loss(
    scores: Tensor, target: Tensor, ignore_label: int = 255, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the summed cross entropy over valid cells, and their number (total weight if classes have weights).

    The two are separate because a batch spread over workers is normalized by the valid cells of all workers.

    Args:
        scores: Scores before softmax, (N, C, h, w).
        target: Class ids, (N, h, w); `ignore_label` in cells without a known class.
        ignore_label: Id of cells that count nowhere.
        weights: Weight of a cell by its class, (C,); None: equal weights, as in the paper.

    Returns:
        Sum and total weight, float32 scalars.
    """
    total = functional.cross_entropy(scores.float(), target.long(), weights, ignore_index=ignore_label, reduction="sum")
    return total, valid_weight(target, ignore_label, weights)


def valid_weight(target: Tensor, ignore_label: int = 255, weights: Tensor | None = None) -> Tensor:
    """Return the divisor of a batch's summed loss: the number of valid cells, or the sum of their class weights."""
    valid = target[target != ignore_label].long()
    return torch.tensor(float(valid.numel())) if weights is None else weights[valid].sum()


def mean_loss(scores: Tensor, target: Tensor, ignore_label: int = 255) -> Tensor:
    """Return the mean cross entropy over valid cells; 0 with zero gradients, not NaN, if no cell is valid."""
    total, valid = summed_loss(scores, target, ignore_label)
    valid = valid.to(total.device)
    return total / torch.where(valid > 0, valid, 1.0)
