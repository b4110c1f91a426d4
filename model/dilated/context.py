"""Context module: layers of 3x3 convolutions with growing dilation at one resolution (Sec. 3, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from model.dilated.truncation import truncate

__all__ = ["CONTEXT_DILATIONS", "LARGE_MULTIPLIERS", "ContextModule", "context_layer_names"]

# Dilations of the 3x3 layers, by number of layers. The number includes the final 1x1 layer; the list does not.
# Seven layers (KITTI): layer 6 is removed. Ten layers (Cityscapes): two are added after layer 6. Appendix A.
CONTEXT_DILATIONS = {
    7: (1, 1, 2, 4, 8, 1),
    8: (1, 1, 2, 4, 8, 16, 1),
    10: (1, 1, 2, 4, 8, 16, 32, 64, 1),
}
# Channels of the large module's 3x3 layers as multiples of C (Table 1), for eight layers.
LARGE_MULTIPLIERS = (2, 2, 4, 8, 16, 32, 32)
PADDINGS = ("layer", "input")


def context_layer_names(count: int) -> tuple[str, ...]:
    """Return the reference code's names of `count` 3x3 layers: ctx_conv1_1, ctx_conv1_2, ctx_conv2_1 … ctx_fc1."""
    middle = [f"ctx_conv{number}_1" for number in range(2, count - 1)]
    return ("ctx_conv1_1", "ctx_conv1_2", *middle, "ctx_fc1")


class ContextModule(nn.Module):
    """Context aggregation over a score map; the output has the size and the channels of the input.

    Args:
        classes: Channels of the score map, C.
        dilations: Dilation of each 3x3 layer, see `CONTEXT_DILATIONS`.
        padding: Kind of zero padding. `layer` pads every layer by its own dilation (urban networks, Appendix A).
            `input` pads the score map once by the sum of the dilations (33 cells for eight layers) and convolves
            validly (VOC). The two differ numerically.
        multipliers: Channels of each 3x3 layer as a multiple of C; None: all 1, the basic module.

    Raises:
        ValueError: If the padding is unknown, the multipliers do not fit the dilations, or there are fewer than four.
    """

    def __init__(
        self,
        classes: int,
        dilations: Sequence[int] = CONTEXT_DILATIONS[8],
        padding: str = "layer",
        multipliers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        channels = [classes * multiple for multiple in multipliers or [1] * len(dilations)]
        if padding not in PADDINGS or len(channels) != len(dilations) or len(dilations) < 4:
            raise ValueError(
                f"a context module needs a padding of {PADDINGS} and one multiplier per dilation, "
                f"got padding={padding!r}, dilations={tuple(dilations)}, multipliers={multipliers}"
            )
        self.classes = classes
        self.dilations = tuple(dilations)
        self.padding = padding
        self.names = context_layer_names(len(channels))
        for name, (inputs, outputs), dilation in zip(
            self.names, pairwise([classes, *channels]), dilations, strict=True
        ):
            self.add_module(name, nn.Conv2d(inputs, outputs, 3, dilation=dilation))
        self.ctx_final = nn.Conv2d(channels[-1], classes, 1)

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores with context: (N, C, h, w) → (N, C, h, w)."""
        maps = scores
        if self.padding == "input":
            maps = functional.pad(maps, [sum(self.dilations)] * 4)
        for layer, dilation in zip(self.layers, self.dilations, strict=True):
            if self.padding == "layer":
                maps = functional.pad(maps, [dilation] * 4)
            maps = truncate(layer(maps))
        # Table 1: the last layer has no truncation, so scores may be negative.
        return self.ctx_final(maps)

    @property
    def layers(self) -> list[nn.Conv2d]:
        """The 3x3 layers, first to last."""
        return [getattr(self, name) for name in self.names]
