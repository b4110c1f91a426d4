"""Contract of front ends: what a family of networks must say about itself, so that everything else works with it.

A front end maps an image to a score map. The context module, windows, training, checkpoints and the CPU kernels use it
only through `FrontEnd`. `docs/architecture.md` shows how to add a family.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from model.errors import CheckpointError
from model.prediction.geometry import Footprint
from model.prediction.upsampling import Upsampling, cells_needed

if TYPE_CHECKING:
    from model.networks.network import NetworkSpec

__all__ = ["CONV_NAMES", "FrontEnd", "FrontEndWidths", "output_channels"]

# The thirteen convolutions of VGG-16, under the names of the reference code.
CONV_NAMES = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 3, 3, 3), start=1) for layer in range(1, layers + 1)
)
_VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@dataclass(frozen=True)
class FrontEndWidths:
    """Output channels of the layers of a front end that is derived from VGG-16.

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


class FrontEnd(nn.Module, abc.ABC):
    """Network from an image to a score map.

    Its layers are direct children, under the names that files store (`conv1_1.weight`, …).

    Attributes:
        footprint: Pixels that a score depends on, and where windows may start.
        widths: Channels of the layers, with which `build` makes such a front end again.
        parts: Names of the layers by part, in the order in which an image passes them: `features` (the layers of
            `features`), `head` (the other layers, except the last) and `scores` (the layers whose shapes depend on the
            classes). Together they name every layer with weights once.
        upsampling: Upsampling of the family's score maps, which recipes use and files leave out; None: they name one.
        feature_halo: Cells by which the maps of `features` exceed the score map along each axis, because `head` has
            valid convolutions; 0 if they have its size.
        activation_checkpointing: Whether backward recomputes the maps inside `features` instead of keeping them; a
            family without this ignores it.
    """

    footprint: Footprint
    widths: FrontEndWidths
    parts: Mapping[str, tuple[str, ...]]
    upsampling: Upsampling | None = None
    feature_halo: int = 0
    activation_checkpointing: bool = False

    @classmethod
    def footprint_of(cls, options: Mapping[str, Any]) -> Footprint:
        """Return the footprint of a front end with these `family_options`, before it is built.

        Raises:
            ValueError: If an option is unknown, missing or out of range.
        """
        return cls.footprint

    @classmethod
    @abc.abstractmethod
    def build(cls, spec: NetworkSpec, widths: FrontEndWidths | None, dropout: float) -> Self:
        """Build a front end with random weights.

        Args:
            spec: Description of the network; `spec.family_options` are the settings of the family.
            widths: Channels of the layers; None: VGG-16's. A family with other layers takes from them what it needs.
            dropout: Probability of dropping a channel value during training.

        Raises:
            ValueError: If an option is unknown or out of range.
        """

    @classmethod
    @abc.abstractmethod
    def from_tensors(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        """Build a front end, without memory for its weights, of the widths that the tensors of a file have.

        Args:
            spec: Description of the network.
            tensors: Tensors of the file by name.

        Raises:
            CheckpointError: If a layer is missing or does not fit the classes.
        """

    @abc.abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return the maps before the head, which caches store if this part does not learn.

        Args:
            images: Windows, (N, 3, H, W), BGR minus mean. With a reflected border they include `footprint.halo` pixels
                on every side.
        """

    @abc.abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """Return the scores, (N, C, h, w), of the maps of `features`.

        Its last layer computes in `model.precision.score_precision`, because the rounding of scores decides labels.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores, (N, C, h, w), of windows (N, 3, H, W), BGR minus mean."""
        return self.head(self.features(images))

    def score_map_size(self, height: int, width: int, upsampling: Upsampling) -> tuple[int, int]:
        """Return the rows and columns of an image's score map.

        With a reflected border these are the cells that the upsampling needs, else a cell for every stride that begins
        within the image, as layers that round up give.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.
            upsampling: Upsampling of the score map.
        """
        if self.footprint.border == "reflected":
            return cells_needed(height, width, upsampling)
        stride = self.footprint.stride
        return -(-height // stride), -(-width // stride)


def output_channels(tensors: Mapping[str, Tensor], layer: str) -> int:
    """Return the number of output channels of a convolution in a file.

    Raises:
        CheckpointError: If its weight is missing, empty or not four-dimensional.
    """
    weight = tensors.get(f"{layer}.weight")
    if weight is None or weight.ndim != 4 or weight.numel() < 1:
        raise CheckpointError(f"layer `{layer}` is missing or is not a convolution: the file is not such a network")
    return int(weight.shape[0])
