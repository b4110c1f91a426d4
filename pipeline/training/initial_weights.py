"""A recipe's network before its first step."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.models import VGG16_Weights, vgg16

from model.errors import ModelError
from model.network import DilatedNetwork, build_network
from model.vgg16 import load_torchvision_vgg16, load_vgg16_bytes
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, StorageError
from pipeline.training.recipe_schema import Recipe

__all__ = ["initial_network"]


def initial_network(recipe: Recipe, storage: Storage) -> tuple[DilatedNetwork, dict[str, Any]]:
    """Builds the network, the same on every worker, and loads the recipe's first weights.

    Returns:
        The network, and the weights' provenance.

    Raises:
        ConfigError: if the weights cannot be had or do not fit.
    """
    config = recipe.network
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.spec(), config.widths(), large=config.context == "large")
    if config.weights == "none":
        return network, {"source": "random initialisation (He et al.)"}
    try:
        return network, _load(network, recipe, storage)
    except (ModelError, StorageError) as error:
        raise ConfigError(f"--network.weights {config.weights} cannot be used: {error}") from error


def _load(network: DilatedNetwork, recipe: Recipe, storage: Storage) -> dict[str, Any]:
    weights = recipe.network.weights
    if weights != "torchvision":
        return load_vgg16_bytes(network.front_end, storage.read(weights), weights)
    try:
        state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    except OSError as error:
        raise ConfigError(
            f"torchvision's VGG-16 weights cannot be fetched ({error}): give --network.weights the URI of a file"
        ) from error
    return load_torchvision_vgg16(network.front_end, state, recipe.mean_bgr)
