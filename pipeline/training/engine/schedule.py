"""Learning-rate schedules as pure functions of the iteration, and the optimizer that uses them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.training.recipes.schema import StageConfig

__all__ = ["build_optimizer", "rate", "set_rate"]

# Reference solver: lr_policy "step", gamma 0.1, stepsize 100000; biases at twice the rate, without decay.
_STEP = 100_000
_GAMMA = 0.1
_BIAS_RATE = 2.0
# Share of the iterations in which the one-cycle schedule rises.
_WARM_UP = 0.15


def rate(config: StageConfig, iteration: int) -> float:
    """Return the learning rate of weights at an iteration, counted from 0."""
    if config.schedule == "step":
        return config.learning_rate * _GAMMA ** (iteration // _STEP)
    if config.schedule == "one_cycle":
        return config.learning_rate * _one_cycle(iteration, config.iterations)
    return config.learning_rate


def _one_cycle(iteration: int, iterations: int) -> float:
    """Return the share of the peak rate: a cosine from 0.04 up to 1, then a cosine down to 0."""
    peak = _WARM_UP * iterations
    if iteration < peak:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * iteration / peak)) / 2
    return (1 + math.cos(math.pi * (iteration - peak) / max(1.0, iterations - peak))) / 2


def build_optimizer(config: StageConfig, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """Return SGD with momentum or AdamW, with weights and biases in separate parameter groups."""
    named = list(parameters)
    weights = [parameter for name, parameter in named if not name.endswith("bias")]
    biases = [parameter for name, parameter in named if name.endswith("bias")]
    groups = [
        {"params": weights, "rate_factor": 1.0, "weight_decay": config.weight_decay},
        {"params": biases, "rate_factor": _BIAS_RATE, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def set_rate(optimizer: torch.optim.Optimizer, weights_rate: float) -> None:
    """Set the learning rate of every parameter group to `weights_rate` times the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = weights_rate * group["rate_factor"]
