"""One file for a network: safetensors with the original layer names and one JSON text. Never a pickle."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.context import ContextModule, context_layer_names
from model.errors import CheckpointError
from model.front_end import CONV_NAMES, FrontEnd, FrontEndWidths
from model.network import ContextSpec, DilatedNetwork, NetworkSpec

__all__ = ["METADATA_KEY", "from_bytes", "network_tensors", "read_metadata", "to_bytes"]

METADATA_KEY = "dilated_context"
FORMAT = 1
_MAX_HEADER = 4 * 2**20
_KEYS = (
    "classes",
    "palette",
    "mean_bgr",
    "ignore_label",
    "context",
    "upsampling",
    "reference_window",
)


def to_bytes(network: DilatedNetwork) -> bytes:
    """Serialises `network`; equal networks give equal bytes."""
    tensors = {name: tensor.float().contiguous() for name, tensor in network_tensors(network).items()}
    return save(tensors, {METADATA_KEY: json.dumps(_describe(network.spec), sort_keys=True)})


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
        raise CheckpointError(f"the tensors cannot be read ({error}): the file is damaged") from error
    spec = _parse_spec(metadata)
    network = DilatedNetwork(spec, _front_end(spec, tensors), _context(spec, tensors))
    _load(network, tensors)
    return network.eval()


def read_metadata(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object under `key` in a safetensors header, read before any tensor is touched.

    Raises:
        CheckpointError: if there is none.
    """
    if len(data) < 8:
        raise CheckpointError(f"{len(data)} bytes are not a safetensors file: give a checkpoint of this project")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"the header claims {length} bytes of {len(data)}: not a whole safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
        described = json.loads(header["__metadata__"][key])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"no metadata `{key}` in the file: it was not written by this project") from error
    if not isinstance(described, dict):
        raise CheckpointError(f"metadata `{key}` is a {type(described).__name__}, not an object")
    return described


def _describe(spec: NetworkSpec) -> dict[str, Any]:
    context = spec.context and {"dilations": list(spec.context.dilations), "padding": spec.context.padding}
    return {
        "format": FORMAT,
        "classes": list(spec.classes),
        "palette": [list(colour) for colour in spec.palette],
        "mean_bgr": list(spec.mean_bgr),
        "ignore_label": spec.ignore_label,
        "context": context,
        "upsampling": spec.upsampling,
        "reference_window": spec.reference_window and list(spec.reference_window),
        **{key: value for key, value in spec.provenance.items() if key not in _KEYS and key != "format"},
    }


def _parse_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"format {metadata.get('format')!r} is unknown, this version reads {FORMAT}: upgrade")
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise CheckpointError(f"metadata lacks {', '.join(missing)}: the file is incomplete")
    try:
        return _build_spec(metadata)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"metadata cannot be used: {error}") from error


def _build_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    context, window = metadata["context"], metadata["reference_window"]
    mean = tuple(float(value) for value in metadata["mean_bgr"])
    palette = tuple(_colour(colour) for colour in metadata["palette"])
    upsampling, ignore = metadata["upsampling"], metadata["ignore_label"]
    if len(mean) != 3 or not all(map(math.isfinite, mean)):
        raise ValueError(f"mean_bgr {mean} is not three numbers")
    if upsampling not in ("grid", "deconvolution") or not isinstance(ignore, int) or not 0 <= ignore <= 255:
        raise ValueError(f"upsampling {upsampling!r} or ignore_label {ignore!r} is not known")
    return NetworkSpec(
        classes=tuple(str(name) for name in metadata["classes"]),
        palette=palette,
        mean_bgr=(mean[0], mean[1], mean[2]),
        ignore_label=ignore,
        context=None if context is None else _context_spec(context),
        upsampling=upsampling,
        reference_window=None if window is None else (int(window[0]), int(window[1])),
        provenance={key: value for key, value in metadata.items() if key not in _KEYS and key != "format"},
    )


def _context_spec(context: Mapping[str, Any]) -> ContextSpec:
    dilations, padding = tuple(int(value) for value in context["dilations"]), context["padding"]
    if padding not in ("layer", "input") or not 4 <= len(dilations) <= 64 or not 1 <= min(dilations) <= 4096:
        raise ValueError(f"context {dict(context)} is not a module of this family")
    return ContextSpec(dilations, padding)


def _colour(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"palette colour {colour} is not within 0–255")
    return red, green, blue


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
    if weight is None or weight.ndim != 4 or weight.shape[0] < 1:
        raise CheckpointError(f"layer `{layer}` is missing or is not a convolution: the file is not such a network")
    return int(weight.shape[0])


def _load(network: DilatedNetwork, tensors: Mapping[str, Tensor]) -> None:
    expected = tensor_names(network)
    if set(expected) != set(tensors):
        difference = sorted(set(expected) ^ set(tensors))
        raise CheckpointError(f"tensors {difference[:4]} are missing or unknown for this kind of network")
    for module in (network.front_end, network.context):
        if module is not None:
            own = {name: tensors[name] for name in module.state_dict()}
            try:
                module.load_state_dict(own, assign=True)
            except RuntimeError as error:
                raise CheckpointError(f"a tensor's shape does not fit: {error}") from error


def tensor_names(network: DilatedNetwork) -> list[str]:
    """The names that a checkpoint of `network` must hold."""
    modules = [network.front_end, *([] if network.context is None else [network.context])]
    return [name for module in modules for name in module.state_dict()]
