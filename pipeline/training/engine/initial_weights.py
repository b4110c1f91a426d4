"""Initial network of a recipe, and the sources of its weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from model.errors import CheckpointError, ModelError
from model.files.checkpoint import METADATA_KEY, from_bytes, read_metadata
from model.networks.context import initialise_random
from model.networks.families import build_network
from model.networks.network import Network
from model.networks.program.archive import is_archive
from model.networks.vgg16 import load_torchvision_vgg16, load_vgg16_bytes
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, StorageError
from pipeline.training.recipes.schema import Recipe

__all__ = ["initial_network", "is_network"]


def initial_network(recipe: Recipe, storage: Storage) -> tuple[Network, dict[str, Any]]:
    """Build the network, identically on every worker, and load the recipe's initial weights.

    Returns:
        The network, and the provenance of its weights.

    Raises:
        ConfigError: If the weights cannot be read or do not fit.
    """
    config = recipe.network
    # The seed makes random weights equal on all workers, which never exchange them.
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.spec(), config.widths(), large=config.context == "large")
    if config.context_init == "random" and network.context is not None:
        initialise_random(network.context)
    if config.weights == "none":
        return network, {"source": "random initialisation (He et al.)"}
    try:
        provenance = _load(network, recipe, storage)
    except (ModelError, StorageError) as error:
        raise ConfigError(f"--network.weights {config.weights} cannot be used: {error}") from error
    if not (set(recipe.stages) - {"context"} or "front end" in provenance.get("copied", ())):
        raise ConfigError(
            f"--network.weights {config.weights} brings no score layer for the context module to learn on: give the "
            "network.safetensors of a front end trained on the same classes"
        )
    return network, provenance


def _load(network: Network, recipe: Recipe, storage: Storage) -> dict[str, Any]:
    """Load the weights that the recipe names into the network, and return their provenance."""
    weights = recipe.network.weights
    if weights != "torchvision":
        data = storage.read(weights)
        if is_archive(data):
            raise ModelError("it is an imported network, which cannot be trained further: train it where it comes from")
        if is_network(data):
            return _warm_start(network, from_bytes(data), weights, hashlib.sha256(data).hexdigest())
        return load_vgg16_bytes(network.front_end, data, weights)
    # Imported only when needed: torchvision takes as long to import as torch, in every worker of every job.
    from torchvision.models import VGG16_Weights, vgg16

    try:
        state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).state_dict()
    except OSError as error:
        raise ConfigError(
            f"torchvision's VGG-16 weights cannot be fetched ({error}): give --network.weights the URI of a file"
        ) from error
    return load_torchvision_vgg16(network.front_end, state, recipe.mean_bgr)


def is_network(data: bytes) -> bool:
    """Return whether the bytes are a network.safetensors of this project rather than other weights."""
    try:
        read_metadata(data, METADATA_KEY)
    except CheckpointError:
        return False
    return True


def _warm_start(network: Network, other: Network, source: str, sha256: str) -> dict[str, Any]:
    """Copy the weights of a trained network, and return their provenance.

    The score layer and the context module are copied only if the classes are equal and in the same order.
    """
    _check_same_input(network, other)
    same_classes = network.spec.classes == other.spec.classes
    of_classes = () if same_classes else network.parts["scores"]
    tensors = other.front_end.state_dict()
    copied = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] not in of_classes}
    # Not strict: the score layer of other classes is missing, and keeps its random weights.
    network.front_end.load_state_dict(copied, strict=False)
    parts = ["front end" if same_classes else "front end without its score layer"]
    if same_classes and network.context is not None and other.context is not None and _same_shape(network, other):
        network.context.load_state_dict(other.context.state_dict())
        parts.append("context module")
    return {"source": source, "sha256": sha256, "copied": parts}


def _check_same_input(network: Network, other: Network) -> None:
    """Raise ModelError unless both networks have the same family, layer widths and mean."""
    family, options = other.spec.family, dict(other.spec.family_options)
    if (family, options) != (network.spec.family, dict(network.spec.family_options)):
        raise ModelError(
            f"its family is {family} with options {options}, the recipe's is {network.spec.family} with "
            f"{dict(network.spec.family_options)}: set --network.family and --network.family-options to its own"
        )
    if network.front_end.widths != other.front_end.widths:
        raise ModelError(
            f"its layers have {other.front_end.widths}, the recipe's {network.front_end.widths}: "
            "set --network.scale and --network.fc to what it was trained with"
        )
    if network.spec.mean_bgr != other.spec.mean_bgr:
        means = " ".join(repr(value) for value in other.spec.mean_bgr)
        raise ModelError(f"it was trained with another mean: set --mean-bgr {means}")


def _same_shape(network: Network, other: Network) -> bool:
    """Return whether the context modules of both networks have equal shapes and equal settings."""
    shapes = [
        [tensor.shape for tensor in each.context.state_dict().values()]
        for each in (network, other)
        if each.context is not None
    ]
    return shapes[0] == shapes[1] and network.spec.context == other.spec.context
