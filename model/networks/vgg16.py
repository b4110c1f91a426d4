"""ImageNet weights of VGG-16 for the front end, in the Caffe or the torchvision convention, with their provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from model.errors import CheckpointError, ModelError
from model.files.metadata import header_of, truncate_text
from model.networks.front_end import CONV_NAMES, FrontEnd

__all__ = ["load_torchvision_vgg16", "load_vgg16_bytes"]

# Index of each convolution in torchvision's `features`.
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# Mean and standard deviation of RGB pixels scaled to 0–1, with which torchvision's weights were trained.
_RGB_MEAN = (0.485, 0.456, 0.406)
_RGB_STD = (0.229, 0.224, 0.225)
# Source layer and kernel size: the input of fc6 is conv5_3 maps pooled to 7x7, that of fc7 a vector.
_CLASSIFIER = {"fc6": ("classifier.0", (7, 7)), "fc7": ("classifier.3", (1, 1))}


def load_vgg16_bytes(front_end: FrontEnd, data: bytes, source: str) -> dict[str, Any]:
    """Copy conv1_1 … conv5_3 from a safetensors file in the Caffe convention (BGR, 0–255, minus mean).

    Tensor names are torchvision's (`features.0.weight`, …). fc6 and fc7 stay unchanged.

    Args:
        front_end: Front end with VGG-16's own widths, changed in place.
        data: Content of the file.
        source: Origin of the file, for the provenance and for messages.

    Returns:
        Provenance for the checkpoint: source, SHA-256 and convention.

    Raises:
        ModelError: If the file is not a safetensors file of VGG-16 weights, or the front end has other widths.
    """
    try:
        header_of(data)
        tensors = load(data)
    except (CheckpointError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{source} is not a safetensors file ({truncate_text(error)}): give VGG-16 weights") from error
    _copy_convolutions(front_end, {name: tensor.float() for name, tensor in tensors.items()})
    return {"source": source, "sha256": hashlib.sha256(data).hexdigest(), "convention": "BGR 0-255 minus mean"}


def load_torchvision_vgg16(
    front_end: FrontEnd, state: Mapping[str, Tensor], mean_bgr: tuple[float, float, float]
) -> dict[str, Any]:
    """Copy torchvision's VGG-16 (RGB, 0–1, standardized), converted to BGR, 0–255, minus `mean_bgr`.

    The first layer absorbs the change of scale, order and mean. So the output of conv1_1 is the same function of the
    image up to rounding. fc6 and fc7 are copied too if the front end has VGG-16's 4,096 channels.

    Args:
        front_end: Front end, changed in place.
        state: Weights, `torchvision.models.vgg16(weights=…).state_dict()`.
        mean_bgr: Mean that this network's preprocessing subtracts, 0–255.

    Returns:
        Provenance for the checkpoint: source, convention and the copied layers among fc6 and fc7.

    Raises:
        ModelError: If the widths of the convolutions differ.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
    tensors["features.0.weight"], tensors["features.0.bias"] = _to_bgr(
        tensors["features.0.weight"], tensors["features.0.bias"], mean_bgr
    )
    _copy_convolutions(front_end, tensors)
    copied = [layer for layer in _CLASSIFIER if _copy_classifier(front_end, tensors, layer)]
    return {"source": "torchvision VGG-16, ImageNet", "convention": "RGB 0-1, converted", "classifier": copied}


def _to_bgr(weight: Tensor, bias: Tensor, mean_bgr: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Rewrite w·x + b as w'·y + b', with x = (rgb/255 - mean)/std and y = bgr - mean_bgr; computed in float64."""
    dtype = torch.float64
    mean = torch.tensor(_RGB_MEAN, dtype=dtype)
    std = torch.tensor(_RGB_STD, dtype=dtype)
    own_mean = torch.tensor(mean_bgr[::-1], dtype=dtype)
    # w' = w/(255·std), channels reversed; b' = b + Σ w'·(mean_bgr - 255·mean) in RGB order.
    scaled = weight.to(dtype) / (255 * std).view(1, 3, 1, 1)
    shift = (scaled * (own_mean - 255 * mean).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return scaled.flip(1).to(weight.dtype), (bias.to(dtype) + shift).to(bias.dtype)


@torch.no_grad()
def _copy_convolutions(front_end: FrontEnd, tensors: Mapping[str, Tensor]) -> None:
    """Copy the thirteen convolutions, and refuse missing tensors or other shapes."""
    if not set(CONV_NAMES) <= {name for name, _ in front_end.named_children()}:
        raise ModelError("VGG-16 weights need a front end with VGG-16's layers: use a network of the same family")
    for name, index in zip(CONV_NAMES, _FEATURES, strict=True):
        layer = front_end.get_submodule(name)
        for part in ("weight", "bias"):
            source = tensors.get(f"features.{index}.{part}")
            target = getattr(layer, part)
            if source is None or source.shape != target.shape:
                raise ModelError(
                    f"{name}.{part} is {tuple(target.shape)} here, {source if source is None else tuple(source.shape)} "
                    "in the VGG-16 weights: pre-trained weights need a front end of full width"
                )
            target.copy_(source)


@torch.no_grad()
def _copy_classifier(front_end: FrontEnd, tensors: Mapping[str, Tensor], layer: str) -> bool:
    """Copy fc6 or fc7 as a convolution if the sizes match; return whether it was copied."""
    source, kernel = _CLASSIFIER[layer]
    convolution = getattr(front_end, layer, None)
    weight = tensors.get(f"{source}.weight")
    if not isinstance(convolution, nn.Conv2d) or weight is None or weight.numel() != convolution.weight.numel():
        return False
    convolution.weight.copy_(weight.view(weight.shape[0], -1, *kernel))
    cast(Tensor, convolution.bias).copy_(tensors[f"{source}.bias"])
    return True
