"""Stages of a recipe: trainable parameters, forward pass, optimizer and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.layers import SampleDropout
from model.networks.network import Network
from pipeline.training.recipes.schema import Recipe, StageConfig, StageName

__all__ = [
    "build_optimizer",
    "dropouts",
    "evaluating",
    "network_after_stage",
    "rate",
    "set_modes",
    "set_rate",
    "stage_forward",
    "trainable",
]

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


def build_optimizer(
    config: StageConfig, parameters: Iterable[tuple[str, nn.Parameter]], parts: Mapping[str, Sequence[str]]
) -> torch.optim.Optimizer:
    """Return SGD with momentum or AdamW, with a group of weights and one of biases for each rate factor.

    Args:
        config: Settings of the stage.
        parameters: Trainable parameters by name.
        parts: Names of the network's layers by part.
    """
    factors = {layer: config.rate_factors.get(part, 1.0) for part, layers in parts.items() for layer in layers}
    by_factor: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters:
        by_factor.setdefault(factors.get(name.split(".")[0], 1.0), []).append((name, parameter))
    groups: list[dict[str, Any]] = []
    for factor, named in by_factor.items():
        weights = [parameter for name, parameter in named if not name.endswith("bias")]
        biases = [parameter for name, parameter in named if name.endswith("bias")]
        groups += [
            {"params": weights, "rate_factor": factor, "weight_decay": config.weight_decay},
            {"params": biases, "rate_factor": factor * _BIAS_RATE, "weight_decay": 0.0},
        ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def set_rate(optimizer: torch.optim.Optimizer, weights_rate: float) -> None:
    """Set the learning rate of every parameter group to `weights_rate` times the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = weights_rate * group["rate_factor"]


def trainable(network: Network, stage: StageName, recipe: Recipe) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that a stage trains, with the names under which checkpoints store them."""
    modules: list[nn.Module] = []
    if stage != "context":
        modules.append(network.front_end)
    if stage in ("context", "joint") and network.context is not None:
        modules.append(network.context)
    named = [pair for module in modules for pair in module.named_parameters()]
    still = [part for part, factor in recipe.stage(stage).rate_factors.items() if factor == 0]
    frozen = {layer for part in (*recipe.frozen_parts, *still) for layer in network.parts[part]}
    return [(name, parameter) for name, parameter in named if name.split(".")[0] not in frozen]


def set_modes(network: Network, stage: StageName, recipe: Recipe) -> None:
    """Enable gradients for the parameters that a stage trains, and set training mode and the stage's dropout."""
    moved = {id(parameter) for _, parameter in trainable(network, stage, recipe)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in moved)
    network.train()
    for layer in dropouts(network):
        layer.probability = recipe.stage(stage).dropout


def dropouts(network: Network) -> Iterator[SampleDropout]:
    """Yield the dropout layers of a network."""
    return (layer for layer in network.modules() if isinstance(layer, SampleDropout))


def stage_forward(network: Network, stage: StageName, recipe: Recipe, inputs: Tensor) -> Tensor:
    """Return the score map from which the loss of a stage is computed.

    Args:
        network: Network in training.
        stage: Name of the stage.
        recipe: Recipe of the run.
        inputs: Batch of the kind `recipe.stage_input(stage)`: images (N, 3, H, W), maps before the
            head (N, F, h + halo, w + halo), or score maps (N, C, h, w).

    Returns:
        The scores (N, C, h, w).
    """
    kind = recipe.stage_input(stage)
    if kind == "scores":
        return network.add_context(inputs)
    # The context stage does not train the front end: without gradients its activations are not kept.
    with torch.set_grad_enabled(stage != "context" and torch.is_grad_enabled()):
        scores = network.front_end.head(inputs) if kind == "features" else network.front_end(inputs)
    return network.add_context(scores) if stage in ("context", "joint") else scores


def network_after_stage(network: Network, stage: StageName) -> Network:
    """Return the network after a stage: the front end alone until a stage has trained the context module."""
    return network if stage in ("context", "joint") else network.without_context()


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Set evaluation mode, which disables dropout, and restore the mode of every layer on exit."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
