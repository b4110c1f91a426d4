"""Checkpoint files: safetensors with the original layer names and one JSON text; never a pickle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.dilated.context import ContextModule, context_layer_names
from model.dilated.front_end import CONV_NAMES, FrontEnd, FrontEndWidths
from model.dilated.network import DilatedNetwork, NetworkSpec
from model.errors import CheckpointError
from model.files.metadata import METADATA_KEY, metadata_of, parse_spec, read_metadata, truncate_text

__all__ = ["METADATA_KEY", "from_bytes", "network_tensors", "read_metadata", "to_bytes"]


def to_bytes(network: DilatedNetwork) -> bytes:
    """Serialize `network` as a checkpoint file; equal networks give equal bytes."""
    tensors = {name: tensor.float().contiguous() for name, tensor in network_tensors(network).items()}
    return save(tensors, {METADATA_KEY: json.dumps(metadata_of(network.spec), sort_keys=True)})


def network_tensors(network: DilatedNetwork) -> dict[str, Tensor]:
    """Return weights and biases on the CPU under the contract's flat names (`conv1_1.weight`, `ctx_final.bias`, …)."""
    modules = [network.front_end, *([] if network.context is None else [network.context])]
    return {name: tensor.detach().cpu() for module in modules for name, tensor in module.state_dict().items()}


def from_bytes(data: bytes) -> DilatedNetwork:
    """Rebuild a network, in evaluation mode, from the bytes of a checkpoint file.

    The shapes of the tensors give the widths and the size of the context module. The names of the VOC release
    (`fc-final`, `ct_*`) are accepted.

    Args:
        data: Content of the file.

    Returns:
        Network in float32 on the CPU.

    Raises:
        CheckpointError: If the bytes are not a checkpoint or contradict themselves; the message names the place.
    """
    metadata = read_metadata(data, METADATA_KEY)
    try:
        tensors = {_contract_name(name): tensor.float() for name, tensor in load(data).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"the tensors cannot be read ({truncate_text(error)}): the file is damaged") from error
    spec = parse_spec(metadata)
    front_end = _front_end(spec, tensors)
    context = _context(spec, tensors)
    try:
        network = DilatedNetwork(spec, front_end, context)
    except ValueError as error:
        raise CheckpointError(f"metadata cannot be used: {error}") from error
    _load(network, tensors)
    return network.eval()


def _contract_name(name: str) -> str:
    """Return the contract's name of a tensor; it differs from `name` in files of the VOC release."""
    if name.startswith("fc-final."):
        return name.replace("fc-final.", "final.", 1)
    return name.replace("ct_", "ctx_", 1) if name.startswith("ct_") else name


def _front_end(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> FrontEnd:
    """Build a front end, without memory for its weights, of the widths that the tensors have."""
    conv = tuple(_outputs(tensors, name) for name in CONV_NAMES)
    widths = FrontEndWidths(conv, _outputs(tensors, "fc6"), _outputs(tensors, "fc7"))
    if _outputs(tensors, "final") != len(spec.classes):
        raise CheckpointError(
            f"metadata names {len(spec.classes)} classes, but `final` has {_outputs(tensors, 'final')} outputs"
        )
    if len(set(spec.classes)) < len(spec.classes):
        raise CheckpointError(f"class name `{Counter(spec.classes).most_common(1)[0][0]}` stands twice: rename one")
    # Meta tensors take no memory; `_load` replaces them with the tensors of the file.
    with torch.device("meta"):
        return FrontEnd(len(spec.classes), widths)


def _context(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> ContextModule | None:
    """Build the context module of `spec`, without memory for its weights; the tensors give its channels."""
    if spec.context is None:
        return None
    names = context_layer_names(len(spec.context.dilations))
    classes = len(spec.classes)
    outputs = [_outputs(tensors, name) for name in names]
    if any(count % classes for count in outputs):
        raise CheckpointError(f"context layers of {outputs} channels do not fit {classes} classes")
    with torch.device("meta"):
        multipliers = [count // classes for count in outputs]
        return ContextModule(classes, spec.context.dilations, spec.context.padding, multipliers)


def _outputs(tensors: Mapping[str, Tensor], layer: str) -> int:
    """Return the number of output channels of a convolution; refuse a weight that is missing, empty or not 4-D."""
    weight = tensors.get(f"{layer}.weight")
    if weight is None or weight.ndim != 4 or weight.numel() < 1:
        raise CheckpointError(f"layer `{layer}` is missing or is not a convolution: the file is not such a network")
    return int(weight.shape[0])


def _load(network: DilatedNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Make the tensors the parameters of `network`, without a copy; refuse other names or shapes."""
    expected = tensor_names(network)
    if set(expected) != set(tensors):
        difference = sorted(set(expected) ^ set(tensors))
        raise CheckpointError(
            f"tensors {truncate_text(difference[:4])} are missing or unknown for this kind of network"
        )
    for module in (network.front_end, network.context):
        if module is not None:
            own = {name: tensors[name] for name in module.state_dict()}
            try:
                module.load_state_dict(own, assign=True)
            except RuntimeError as error:
                raise CheckpointError(f"a tensor's shape does not fit: {truncate_text(error)}") from error


def tensor_names(network: DilatedNetwork) -> list[str]:
    """Return the names of the tensors that a checkpoint of `network` must hold."""
    modules = [network.front_end, *([] if network.context is None else [network.context])]
    return [name for module in modules for name in module.state_dict()]
