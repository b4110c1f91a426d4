"""Forward pass and trainable parameters of each stage (Sec. 4, Sec. 5, Appendix A)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model.dilated.front_end import CONV_NAMES
from model.dilated.network import DilatedNetwork
from pipeline.training.recipes.schema import Recipe, StageName

__all__ = ["evaluating", "network_after_stage", "set_modes", "stage_forward", "trainable"]


def trainable(network: DilatedNetwork, stage: StageName, recipe: Recipe) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that a stage trains, with the names under which checkpoints store them."""
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
    """Enable gradients for the parameters that a stage trains, and set training mode and the stage's dropout."""
    moved = {id(parameter) for _, parameter in trainable(network, stage, recipe)}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in moved)
    network.train()
    network.front_end.dropout.probability = recipe.stage(stage).dropout


def stage_forward(network: DilatedNetwork, stage: StageName, recipe: Recipe, inputs: Tensor) -> Tensor:
    """Return the scores at stride 8 from which the loss of a stage is computed.

    Args:
        network: Network in training.
        stage: Name of the stage.
        recipe: Recipe of the run.
        inputs: Batch of the kind `recipe.stage_input(stage)`: images (N, 3, H, W), conv5_3 maps (N, F, h + 24, w + 24)
            or score maps (N, C, h, w).

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


def network_after_stage(network: DilatedNetwork, stage: StageName) -> DilatedNetwork:
    """Return the network after a stage: the front end alone until a stage has trained the context module."""
    return network if stage in ("context", "joint") else network.without_context()


@contextmanager
def evaluating(network: DilatedNetwork) -> Iterator[None]:
    """Set evaluation mode, which disables dropout, and restore the mode of every layer on exit."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
