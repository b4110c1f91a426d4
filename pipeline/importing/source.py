"""Network from a source, and the statements of its files about input, classes and output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Selected", "Source", "Stated", "is_placeholder"]

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Stated:
    """Statements of a network's files; None where they say nothing.

    Attributes:
        classes: Class names, in the order of the output's channels.
        ignore_label: Label value that counts nowhere.
        channels: Order of the input's channels.
        scale: Factor of pixel values of 0–255.
        mean: Mean of each channel after scaling.
        std: Standard deviation of each channel after scaling.
        resize: Working size, as in the description of a network.
        multiple_of: Number of pixels of which the height and width of an input must be a multiple.
    """

    classes: tuple[str, ...] | None = None
    ignore_label: int | None = None
    channels: str | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resize: dict[str, Any] | None = None
    multiple_of: int | None = None


@dataclass(frozen=True)
class Source:
    """A network that was read, ready to be exported.

    Attributes:
        network: Module from standardized images (N, 3, H, W) to a map (N, C, h, w), in evaluation mode.
        stated: Statements of its files.
        upsampled: Whether the original pipeline interpolates the map to the image's size without aligned corners.
        record: Origin, for the description of the network; JSON values.
    """

    network: nn.Module
    stated: Stated
    upsampled: bool = False
    record: dict[str, Any] = field(default_factory=dict)


class Selected(nn.Module):
    """Network with one of its outputs.

    Args:
        network: Network that returns a tensor, or a mapping, object or sequence of tensors.
        key: Name or number of the output; None: the network returns a tensor.
    """

    def __init__(self, network: nn.Module, key: str | int | None) -> None:
        super().__init__()
        self.network = network
        self.key = key

    def forward(self, images: Tensor) -> Tensor:
        """Return the chosen output, (N, C, h, w), of images (N, 3, H, W)."""
        output = self.network(images)
        if self.key is None:
            return output
        if isinstance(self.key, str) and not isinstance(output, dict):
            chosen: Tensor = getattr(output, self.key)
            return chosen
        return output[self.key]


def is_placeholder(names: tuple[str, ...]) -> bool:
    """Return whether class names are those that a library makes up, such as `LABEL_3`, and so name nothing."""
    return all(re.fullmatch(r"(LABEL_|class_|label_)?\d+", name) for name in names)
