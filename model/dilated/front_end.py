"""Front end: VGG-16 without its last two poolings; the later layers are dilated instead (Sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.dilated.layers import SampleDropout, relu
from model.kernels.convolutions import im2col_conv2d
from model.precision import score_precision

__all__ = ["CONV_NAMES", "HEAD_CELLS", "FrontEnd", "FrontEndWidths"]

# Layers of each VGG-16 block; a max pooling of stride 2 follows each of the first three blocks.
_BLOCKS = (2, 2, 3, 3, 3)
_POOLED_BLOCKS = 3
CONV_NAMES = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate(_BLOCKS, start=1) for layer in range(1, layers + 1)
)
_VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# Cells by which fc6's 7x7 window at dilation 4 shrinks the conv5_3 maps: 6 * 4.
HEAD_CELLS = 24
# Approximate standard deviation of pixel values (0-255), see `FrontEnd.reset_parameters`.
_PIXEL_DEVIATION = 64.0
# For a 7x7 dilated convolution with more outputs than this, oneDNN computes the weight gradient with a reference
# kernel that does not finish within minutes (full-width fc6 has 4,096). Slices of this size use the fast kernel.
_FC6_SLICE = 2048


@dataclass(frozen=True)
class FrontEndWidths:
    """Output channels of the layers of a front end.

    Attributes:
        conv: Channels of the thirteen convolutions, conv1_1 to conv5_3.
        fc6: Channels of fc6.
        fc7: Channels of fc7.
    """

    conv: tuple[int, ...] = _VGG16
    fc6: int = 4096
    fc7: int = 4096

    def __post_init__(self) -> None:
        if len(self.conv) != len(CONV_NAMES) or min(*self.conv, self.fc6, self.fc7) < 1:
            raise ValueError(f"a front end has {len(CONV_NAMES)} convolutions of at least one channel, got {self}")

    @classmethod
    def vgg16(cls, scale: float = 1.0, fc: int | None = None) -> FrontEndWidths:
        """Return VGG-16's widths times `scale`, with `fc` channels in fc6 and fc7 (None: 4,096 times `scale`)."""
        wide = fc if fc is not None else max(1, round(4096 * scale))
        return cls(tuple(max(1, round(width * scale)) for width in _VGG16), wide, wide)


class FrontEnd(nn.Module):
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
        self.activation_checkpointing = False
        self.reset_parameters()

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

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, (N, C, cells(H), cells(W)), of images (N, 3, H, W), BGR minus mean, margin included."""
        return self.head(self.features(images))

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
