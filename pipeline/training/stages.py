"""What each stage computes and which parameters it moves (Sec. 4, Sec. 5, Appendix A)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model.front_end import CONV_NAMES
from model.network import DilatedNetwork
from pipeline.training.recipe_schema import Recipe, StageName

__all__ = ["evaluating", "set_modes", "stage_forward", "trainable", "visible_network"]


def trainable(network: DilatedNetwork, stage: StageName, recipe: Recipe) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that a stage moves; names are the checkpoint's."""
    modules: list[nn.Module] = []
    if stage != "context":
        modules.append(network.front_end)
    if stage in ("context", "joint") and network.context is not None:
        modules.append(network.context)
    named = [pair for module in modules for pair in module.named_parameters()]
    if recipe.frozen_convolutions:
        named = [(name, parameter) for name, parameter in named if name.split(".")[0] not in CONV_NAMES]
    return named


def set_modes(network: DilatedNetwork, stage: StageName, recipe: Recipe) -> None:
    """Training mode, dropout and gradients for what a stage moves, evaluation mode for all else."""
    moved = {id(parameter) for _, parameter in trainable(network, stage, recipe)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in moved)
    network.train()
    network.front_end.dropout.probability = recipe.stage(stage).dropout


def stage_forward(network: DilatedNetwork, stage: StageName, recipe: Recipe, inputs: Tensor) -> Tensor:
    """Scores at stride 8 on which a stage's loss rests; `inputs` are what `recipe.stage_input(stage)` says."""
    kind = recipe.stage_input(stage)
    if kind == "scores":
        return network.add_context(inputs)
    with torch.set_grad_enabled(stage != "context" and torch.is_grad_enabled()):
        scores = network.front_end.head(inputs) if kind == "features" else network.front_end(inputs)
    return network.add_context(scores) if stage in ("context", "joint") else scores


def visible_network(network: DilatedNetwork, stage: StageName) -> DilatedNetwork:
    """The network as it stands after a stage: the bare front end as long as nothing has trained the context."""
    return network if stage in ("context", "joint") else network.without_context()


@contextmanager
def evaluating(network: DilatedNetwork) -> Iterator[None]:
    """Evaluation mode, without dropout; on leaving, whatever mode each layer was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
