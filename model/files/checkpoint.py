"""Checkpoint files: safetensors with the original layer names and one JSON text; never a pickle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.errors import CheckpointError
from model.files.metadata import METADATA_KEY, metadata_of, parse_spec, read_metadata, truncate_text
from model.networks.context import ContextModule, context_layer_names
from model.networks.families import FAMILIES
from model.networks.front_end import output_channels
from model.networks.network import Network, NetworkSpec
from model.networks.program.archive import is_archive
from model.networks.program.front_end import network_from_archive

__all__ = ["METADATA_KEY", "from_bytes", "network_tensors", "read_metadata", "to_bytes"]


def to_bytes(network: Network) -> bytes:
    """Serialize `network` as a checkpoint file; equal networks give equal bytes."""
    tensors = {name: tensor.float().contiguous() for name, tensor in network_tensors(network).items()}
    return save(tensors, {METADATA_KEY: json.dumps(metadata_of(network.spec), sort_keys=True)})


def network_tensors(network: Network) -> dict[str, Tensor]:
    """Return weights and biases on the CPU under the contract's flat names (`conv1_1.weight`, `ctx_final.bias`, …)."""
    modules = network.modules_with_weights
    return {name: tensor.detach().cpu() for module in modules for name, tensor in module.state_dict().items()}


def from_bytes(data: bytes) -> Network:
    """Rebuild a network, in evaluation mode, from the bytes of a checkpoint file or of an imported archive.

    The shapes of the tensors give the widths and the size of the context module. The names of the VOC release
    (`fc-final`, `ct_*`) are accepted.

    Args:
        data: Content of the file.

    Returns:
        Network in float32 on the CPU.

    Raises:
        CheckpointError: If the bytes are not a checkpoint or contradict themselves; the message names the place.
    """
    if is_archive(data):
        return network_from_archive(data)
    metadata = read_metadata(data, METADATA_KEY)
    try:
        tensors = {_contract_name(name): tensor.float() for name, tensor in load(data).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"the tensors cannot be read ({truncate_text(error)}): the file is damaged") from error
    spec = parse_spec(metadata)
    try:
        front_end = FAMILIES[spec.family].from_tensors(spec, tensors)
    except (ValueError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"family_options or tensors cannot be used: {truncate_text(error)}") from error
    if len(set(spec.classes)) < len(spec.classes):
        raise CheckpointError(f"class name `{Counter(spec.classes).most_common(1)[0][0]}` stands twice: rename one")
    context = _context(spec, tensors)
    try:
        network = Network(spec, front_end, context)
    except ValueError as error:
        raise CheckpointError(f"metadata cannot be used: {error}") from error
    _load(network, tensors)
    return network.eval()


def _contract_name(name: str) -> str:
    """Return the contract's name of a tensor; it differs from `name` in files of the VOC release."""
    if name.startswith("fc-final."):
        return name.replace("fc-final.", "final.", 1)
    return name.replace("ct_", "ctx_", 1) if name.startswith("ct_") else name


def _context(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> ContextModule | None:
    """Build the context module of `spec`, without memory for its weights; the tensors give its channels."""
    if spec.context is None:
        return None
    names = context_layer_names(len(spec.context.dilations))
    classes = len(spec.classes)
    outputs = [output_channels(tensors, name) for name in names]
    if any(count % classes for count in outputs):
        raise CheckpointError(f"context layers of {outputs} channels do not fit {classes} classes")
    with torch.device("meta"):
        multipliers = [count // classes for count in outputs]
        return ContextModule(classes, spec.context.dilations, spec.context.padding, multipliers)


def _load(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Make the tensors the parameters of `network`, without a copy; refuse other names or shapes."""
    expected = tensor_names(network)
    if set(expected) != set(tensors):
        difference = sorted(set(expected) ^ set(tensors))
        raise CheckpointError(
            f"tensors {truncate_text(difference[:4])} are missing or unknown for this kind of network"
        )
    for module in network.modules_with_weights:
        own = {name: tensors[name] for name in module.state_dict()}
        try:
            module.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"a tensor's shape does not fit: {truncate_text(error)}") from error


def tensor_names(network: Network) -> list[str]:
    """Return the names of the tensors that a checkpoint of `network` must hold."""
    return [name for module in network.modules_with_weights for name in module.state_dict()]
