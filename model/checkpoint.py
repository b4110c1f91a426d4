"""One file for a network: safetensors with the original layer names and one JSON text. Never a pickle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.context import ContextModule, context_layer_names
from model.errors import CheckpointError
from model.front_end import CONV_NAMES, FrontEnd, FrontEndWidths
from model.metadata import METADATA_KEY, describe, parse_spec, read_metadata, short
from model.network import DilatedNetwork, NetworkSpec

__all__ = ["METADATA_KEY", "from_bytes", "network_tensors", "read_metadata", "to_bytes"]


def to_bytes(network: DilatedNetwork) -> bytes:
    """Serialises `network`; equal networks give equal bytes."""
    tensors = {name: tensor.float().contiguous() for name, tensor in network_tensors(network).items()}
    return save(tensors, {METADATA_KEY: json.dumps(describe(network.spec), sort_keys=True)})


def network_tensors(network: DilatedNetwork) -> dict[str, Tensor]:
    """Weights and biases on the CPU under the contract's flat names (`conv1_1.weight`, `ctx_final.bias` …)."""
    modules = [network.front_end, *([] if network.context is None else [network.context])]
    return {name: tensor.detach().cpu() for module in modules for name, tensor in module.state_dict().items()}


def from_bytes(data: bytes) -> DilatedNetwork:
    """Rebuilds a network, in evaluation mode, from a file's bytes.

    Widths and the size of the context module are read from the tensors' shapes. The VOC release's names
    (`fc-final`, `ct_*`) are accepted.

    Raises:
        CheckpointError: if the bytes are not such a file or contradict themselves; the message says where.
    """
    metadata = read_metadata(data, METADATA_KEY)
    try:
        tensors = {_contract_name(name): tensor.float() for name, tensor in load(data).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"the tensors cannot be read ({short(error)}): the file is damaged") from error
    spec = parse_spec(metadata)
    network = DilatedNetwork(spec, _front_end(spec, tensors), _context(spec, tensors))
    _load(network, tensors)
    return network.eval()


def _contract_name(name: str) -> str:
    if name.startswith("fc-final."):
        return name.replace("fc-final.", "final.", 1)
    return name.replace("ct_", "ctx_", 1) if name.startswith("ct_") else name


def _front_end(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> FrontEnd:
    conv = tuple(_outputs(tensors, name) for name in CONV_NAMES)
    widths = FrontEndWidths(conv, _outputs(tensors, "fc6"), _outputs(tensors, "fc7"))
    if _outputs(tensors, "final") != len(spec.classes):
        raise CheckpointError(
            f"metadata names {len(spec.classes)} classes, but `final` has {_outputs(tensors, 'final')} outputs"
        )
    if len(set(spec.classes)) < len(spec.classes):
        raise CheckpointError(f"class name `{Counter(spec.classes).most_common(1)[0][0]}` stands twice: rename one")
    with torch.device("meta"):
        return FrontEnd(len(spec.classes), widths)


def _context(spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> ContextModule | None:
    if spec.context is None:
        return None
    names, classes = context_layer_names(len(spec.context.dilations)), len(spec.classes)
    outputs = [_outputs(tensors, name) for name in names]
    if any(count % classes for count in outputs):
        raise CheckpointError(f"context layers of {outputs} channels do not fit {classes} classes")
    with torch.device("meta"):
        multipliers = [count // classes for count in outputs]
        return ContextModule(classes, spec.context.dilations, spec.context.padding, multipliers)


def _outputs(tensors: Mapping[str, Tensor], layer: str) -> int:
    weight = tensors.get(f"{layer}.weight")
    if weight is None or weight.ndim != 4 or weight.numel() < 1:
        raise CheckpointError(f"layer `{layer}` is missing or is not a convolution: the file is not such a network")
    return int(weight.shape[0])


def _load(network: DilatedNetwork, tensors: Mapping[str, Tensor]) -> None:
    expected = tensor_names(network)
    if set(expected) != set(tensors):
        difference = sorted(set(expected) ^ set(tensors))
        raise CheckpointError(f"tensors {short(difference[:4])} are missing or unknown for this kind of network")
    for module in (network.front_end, network.context):
        if module is not None:
            own = {name: tensors[name] for name in module.state_dict()}
            try:
                module.load_state_dict(own, assign=True)
            except RuntimeError as error:
                raise CheckpointError(f"a tensor's shape does not fit: {short(error)}") from error


def tensor_names(network: DilatedNetwork) -> list[str]:
    """The names that a checkpoint of `network` must hold."""
    modules = [network.front_end, *([] if network.context is None else [network.context])]
    return [name for module in modules for name in module.state_dict()]
