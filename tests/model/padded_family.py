"""A small family of networks that pad by themselves: what a family has to say, and a user of the whole contract."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from model.errors import CheckpointError
from model.networks.families import build_network
from model.networks.front_end import CONV_NAMES, FrontEnd, FrontEndWidths, output_channels
from model.networks.layers import SampleDropout, relu
from model.networks.network import ContextSpec, Network, NetworkSpec
from model.precision import score_precision
from model.prediction.geometry import Footprint
from model.prediction.upsampling import Upsampling

PADDED = "padded"
WIDTHS = FrontEndWidths((6,) * len(CONV_NAMES), 8, 8)
UPSAMPLING = Upsampling(4, 0.0, "scores", "clamp")


class PaddedFrontEnd(FrontEnd):
    """Two convolutions of stride 2 around a dilated one, then a head of a 3x3 and a 1x1 convolution.

    Halo before a cell, in pixels: 1 (conv1) + 2·dilation (conv2 at stride 2) + 2 (conv3) + 4 (hidden at stride 4).
    After the cell's four pixels it is less.
    """

    upsampling = UPSAMPLING
    parts = MappingProxyType({"features": ("conv1", "conv2", "conv3"), "head": ("hidden",), "scores": ("classes",)})

    def __init__(self, classes: int, width: int, hidden: int, dilation: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.footprint = self.footprint_of({"dilation": dilation})
        self.widths = FrontEndWidths((width,) * len(CONV_NAMES), hidden, hidden)
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, dilation=dilation, padding=dilation)
        self.conv3 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.hidden = nn.Conv2d(width, hidden, 3, padding=1)
        self.dropout = SampleDropout(dropout)
        self.classes = nn.Conv2d(hidden, classes, 1)
        if not self.classes.weight.is_meta:
            with torch.no_grad():
                self.conv1.weight.div_(64)  # pixels of 0-255

    @classmethod
    def footprint_of(cls, options: Mapping[str, Any]) -> Footprint:
        dilation = options.get("dilation")
        if set(options) != {"dilation"} or type(dilation) is not int or not 1 <= dilation <= 1000:
            raise ValueError(f"family_options {str(options)[:100]} are no dilation of 1 to 1000")
        return Footprint(stride=4, halo=7 + 2 * dilation, phase=4, border="padded")

    @classmethod
    def build(cls, spec: NetworkSpec, widths: FrontEndWidths | None, dropout: float) -> Self:
        widths = widths or WIDTHS
        return cls(len(spec.classes), widths.conv[0], widths.fc6, spec.family_options["dilation"], dropout)

    @classmethod
    def from_tensors(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        cls.footprint_of(spec.family_options)
        width, hidden, classes = (output_channels(tensors, name) for name in ("conv1", "hidden", "classes"))
        if classes != len(spec.classes):
            raise CheckpointError(f"metadata names {len(spec.classes)} classes, but `classes` has {classes} outputs")
        with torch.device("meta"):
            return cls(classes, width, hidden, spec.family_options["dilation"])

    def features(self, images: Tensor) -> Tensor:
        maps = relu(self.conv1(images))
        return relu(self.conv3(relu(self.conv2(maps))))

    def head(self, features: Tensor) -> Tensor:
        maps = self.dropout(relu(self.hidden(features)))
        with score_precision(maps.device):
            return self.classes(maps.to(self.classes.weight.dtype))


def padded_spec(upsampling: Upsampling = UPSAMPLING, context: ContextSpec | None = None) -> NetworkSpec:
    """Return the description of a padded network of three classes."""
    palette = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    options = {"dilation": 3}
    return NetworkSpec(
        ("a", "b", "c"),
        palette,
        (100.0, 110.0, 120.0),
        upsampling=upsampling,
        context=context,
        family=PADDED,
        family_options=options,
    )


def padded_network(spec: NetworkSpec, seed: int = 0) -> Network:
    """Return a padded network with random weights and scores that differ clearly; its family must be registered."""
    torch.manual_seed(seed)
    network = build_network(spec, WIDTHS).eval()
    with torch.no_grad():
        for layer in network.front_end.children():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(2)
    return network
