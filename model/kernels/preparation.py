"""Preparation of a network for prediction: the only place that selects each layer's algorithm for the device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator

import torch
from torch import nn

from model.kernels.convolutions import Transform, TransformConvolution, fits, fourier, pays, winograd
from model.networks.network import Network

__all__ = ["prepare"]

logger = logging.getLogger(__name__)
# Output cells per side for which a layer's transform must save time to be prepared at all: a window of average size.
_TYPICAL = 64
# Output cells of a tile of fc6, best first. The first divides 48 x 32 cells of the score map, and so fits images of
# 480x360 and of 500x375 pixels without waste. Tiles with fewer bins need less memory and more operations.
_FC6_TILES = ((12, 8), (6, 8))


def prepare(network: Network, memory: int, *, compile_kernels: bool = False) -> Network:
    """Return a copy of the network that is prepared for many predictions; weights that keep their layout are shared.

    On the CPU, convolutions with enough channels are computed in a transform domain (`model.kernels.convolutions`).

    Args:
        network: Network in evaluation mode, in float32.
        memory: Largest total size of transformed weights, bytes; 2.2 GiB are enough for every layer at full width.
        compile_kernels: Whether torch.compile fuses the operations between convolutions, at the first image of each
            size.
    """
    # The memo lists every parameter as already copied, so deepcopy shares the parameters.
    prepared = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
    if next(network.parameters()).device.type == "cpu":
        _transform(prepared, memory)
    for layer in _direct(prepared):
        # A new parameter, so that the given network's weights keep their layout.
        layer.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=torch.channels_last), False)
    if compile_kernels:
        prepared.front_end.compile()
    return prepared


def _transform(network: Network, memory: int) -> None:
    """Replace layers by their transforms while `memory` bytes last."""
    left = memory
    for owner, name, layer, transform in _candidates(network):
        size = 4 * len(transform.forward) * layer.in_channels * layer.out_channels
        # A layer has several candidates; the first that fits replaces it.
        if size <= left and getattr(owner, name) is layer:
            setattr(owner, name, TransformConvolution(layer, transform))
            left -= size
    logger.info("transformed weights: %.2f GiB", (memory - left) / 2**30)


def _direct(network: Network) -> Iterator[nn.Conv2d]:
    """Yield the convolutions that no transform replaced."""
    for owner in network.modules():
        # A transform keeps the layer that it replaces, for maps on which the transform does not pay.
        if not isinstance(owner, TransformConvolution):
            yield from (layer for layer in owner.children() if isinstance(layer, nn.Conv2d))


def _candidates(network: Network) -> Iterator[tuple[nn.Module, str, nn.Conv2d, Transform]]:
    """Yield (owner, name, layer, transform) for possible replacements, those that save most first."""
    choices = {7: [fourier(outputs, 7) for outputs in _FC6_TILES], 3: [winograd()]}
    children = [(owner, name, layer) for owner in network.modules() for name, layer in owner.named_children()]
    layers = [(owner, name, layer) for owner, name, layer in children if isinstance(layer, nn.Conv2d) and fits(layer)]
    # fc6 first: it saves most. The sort is stable and keeps the order of the other layers.
    for owner, name, layer in sorted(layers, key=lambda item: -item[2].kernel_size[0]):
        for transform in choices.get(layer.kernel_size[0], []):
            if pays(layer, transform, _TYPICAL, _TYPICAL):
                yield owner, name, layer, transform
