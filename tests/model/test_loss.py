"""Tests of the loss over valid cells, against a naive mean, and where no cell is valid."""

from __future__ import annotations

import numpy as np
import torch

from model.networks.loss import mean_loss, summed_loss


def test_mean_over_valid_cells_only() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 4, 5))
    target[0, :2] = 255
    logs = scores - scores.logsumexp(dim=1, keepdim=True)
    values = [
        -float(logs[n, int(target[n, i, j]), i, j]) for n, i, j in np.ndindex(2, 4, 5) if int(target[n, i, j]) != 255
    ]
    assert abs(float(mean_loss(scores, target)) - float(np.mean(values))) < 1e-6
    assert int(summed_loss(scores, target)[1]) == len(values)


def test_no_valid_cell_gives_zero_with_zero_gradient() -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = mean_loss(scores, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.abs().any()


def test_another_ignore_label() -> None:
    scores = torch.randn(1, 3, 1, 2)
    both = mean_loss(scores, torch.tensor([[[0, 1]]]), ignore_label=255)
    first = mean_loss(scores, torch.tensor([[[0, 2]]]), ignore_label=2)
    torch.testing.assert_close(first, mean_loss(scores[..., :1], torch.tensor([[[0]]])))
    assert both != first
