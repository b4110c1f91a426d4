"""Front end: VGG-16 without its last two poolings; the later layers are dilated instead (Sec. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.errors import CheckpointError
from model.kernels.convolutions import im2col_conv2d
from model.networks.dilated.geometry import FOOTPRINT, score_map_size
from model.networks.front_end import CONV_NAMES, FrontEnd, FrontEndWidths, output_channels
from model.networks.layers import SampleDropout, relu
from model.networks.network import NetworkSpec
from model.precision import score_precision
from model.prediction.geometry import Footprint
from model.prediction.upsampling import GRID, Upsampling

__all__ = ["HEAD_CELLS", "DilatedFrontEnd"]

# Layers of each VGG-16 block; a max pooling of stride 2 follows each of the first three blocks.
_BLOCKS = (2, 2, 3, 3, 3)
_POOLED_BLOCKS = 3
# Cells by which fc6's 7x7 window at dilation 4 shrinks the conv5_3 maps: 6 * 4.
HEAD_CELLS = 24
# Approximate standard deviation of pixel values (0-255), see `DilatedFrontEnd.reset_parameters`.
_PIXEL_DEVIATION = 64.0
# For a 7x7 dilated convolution with more outputs than this, oneDNN computes the weight gradient with a reference
# kernel that does not finish within minutes (full-width fc6 has 4,096). Slices of this size use the fast kernel.
_FC6_SLICE = 2048


class DilatedFrontEnd(FrontEnd):
    """Network from a reflected image to a score map at stride 8; every convolution is valid.

    Layer names are those of the reference code. VGG-16 and the reference training nets have the dropout after fc6 and
    fc7 too. Without pre-trained weights the layers start from He et al.'s distribution, with biases of zero.

    Args:
        classes: Channels of the score map.
        widths: Channels of every layer; None: VGG-16's widths.
        dropout: Probability of dropping a channel value after fc6 and fc7 during training.

    Attributes:
        activation_checkpointing: Whether backward recomputes the maps inside each block of convolutions instead of
            keeping them. This takes about a third more time and a fraction of the memory; the gradients are the same.
    """

    footprint = FOOTPRINT
    feature_halo = HEAD_CELLS
    parts = MappingProxyType({"features": CONV_NAMES, "head": ("fc6", "fc7"), "scores": ("final",)})

    def __init__(self, classes: int, widths: FrontEndWidths | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        self.widths = widths or FrontEndWidths()
        for name, (inputs, outputs) in zip(CONV_NAMES, pairwise((3, *self.widths.conv)), strict=True):
            dilation = 2 if name.startswith("conv5") else 1
            self.add_module(name, nn.Conv2d(inputs, outputs, 3, dilation=dilation))
        self.fc6 = nn.Conv2d(self.widths.conv[-1], self.widths.fc6, 7, dilation=4)
        self.fc7 = nn.Conv2d(self.widths.fc6, self.widths.fc7, 1)
        self.final = nn.Conv2d(self.widths.fc7, classes, 1)
        self.dropout = SampleDropout(dropout)
        self.reset_parameters()

    @classmethod
    def footprint_of(cls, options: Mapping[str, Any]) -> Footprint:
        """Return the footprint, and refuse options, as the family has none."""
        if options:
            raise ValueError(
                f"family_options name {str(min(options))[:40]!r}, but the dilated family has none: upgrade"
            )
        return cls.footprint

    @classmethod
    def build(cls, spec: NetworkSpec, widths: FrontEndWidths | None, dropout: float) -> Self:
        """Build a front end with random weights; the family has no options."""
        cls.footprint_of(spec.family_options)
        return cls(len(spec.classes), widths, dropout)

    @classmethod
    def from_tensors(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        """Build a front end, without memory for its weights, of the widths that the tensors of a file have."""
        cls.footprint_of(spec.family_options)
        conv = tuple(output_channels(tensors, name) for name in CONV_NAMES)
        widths = FrontEndWidths(conv, output_channels(tensors, "fc6"), output_channels(tensors, "fc7"))
        classes = output_channels(tensors, "final")
        if classes != len(spec.classes):
            raise CheckpointError(f"metadata names {len(spec.classes)} classes, but `final` has {classes} outputs")
        # Meta tensors take no memory; the loader replaces them with the tensors of the file.
        with torch.device("meta"):
            return cls(classes, widths)

    def reset_parameters(self) -> None:
        """Draw all weights again; do nothing on the meta device."""
        if self.final.weight.is_meta:
            # Torch would import its compiler to draw numbers that are discarded: over a second in every process.
            return
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias) if layer.bias is not None else None
        # The reference code has 0.001 at 4,096 channels (network.py); the root keeps the scale of the first scores, and
        # so a first loss near ln C, at other widths.
        nn.init.normal_(self.final.weight, std=0.001 * (4096 / self.widths.fc7) ** 0.5)
        with torch.no_grad():
            # He et al. assume inputs of unit variance. Pixels of 0-255 have a standard deviation of about 64: without
            # this division, the first loss would be far above ln C.
            self.get_parameter("conv1_1.weight").div_(_PIXEL_DEVIATION)

    def score_map_size(self, height: int, width: int, upsampling: Upsampling) -> tuple[int, int]:
        """Return the rows and columns of an image's score map; the reference code's grid has one cell more."""
        if upsampling == GRID:
            return score_map_size(height, width)
        return super().score_map_size(height, width, upsampling)

    def features(self, images: Tensor) -> Tensor:
        """Return the conv5_3 maps after truncation: (N, 3, H, W) → (N, F, cells(H) + 24, cells(W) + 24)."""
        maps = images
        for block in range(1, len(_BLOCKS) + 1):
            if self.activation_checkpointing and torch.is_grad_enabled():
                # Blocks contain nothing random, so backward needs no random state to repeat the same values.
                maps = checkpoint(self._block, maps, block, use_reentrant=False, preserve_rng_state=False)
            else:
                maps = self._block(maps, block)
        return maps

    def _block(self, maps: Tensor, block: int) -> Tensor:
        """Apply the convolutions of a block (1 to 5) and, after the first three blocks, the max pooling."""
        for layer in range(1, _BLOCKS[block - 1] + 1):
            maps = relu(self.get_submodule(f"conv{block}_{layer}")(maps))
        # Caffe rounds pooled sizes up; rounding down would lose a column of the 1640-pixel KITTI release.
        return functional.max_pool2d(maps, 2, 2, ceil_mode=True) if block <= _POOLED_BLOCKS else maps

    def head(self, features: Tensor) -> Tensor:
        """Return the scores of conv5_3 maps: (N, F, h + 24, w + 24) → (N, C, h, w)."""
        maps = self.dropout(relu(self._fc6(features)))
        maps = self.dropout(relu(self.fc7(maps)))
        with score_precision(maps.device):
            return self.final(maps.to(self.final.weight.dtype))

    def _fc6(self, features: Tensor) -> Tensor:
        """Apply fc6 in the way that is fast on the device: (N, F, h + 24, w + 24) → (N, fc6, h, w)."""
        if features.device.type == "cuda":
            # cuDNN has no fast kernels for a 7x7 window at dilation 4, and trying its kernels took minutes on an H200.
            return im2col_conv2d(self.fc6, features)
        if self.widths.fc6 <= _FC6_SLICE or not torch.is_grad_enabled():
            return self.fc6(features)
        parts = [functional.conv2d(features, weight, dilation=4) for weight in self.fc6.weight.split(_FC6_SLICE)]
        return torch.cat(parts, dim=1) + cast(Tensor, self.fc6.bias).view(-1, 1, 1)
