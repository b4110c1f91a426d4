"""Context module: dilated convolutions over score maps (paper, Sec. 3 and Table 1), and its identity start."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import relu
from model.precision import score_precision

__all__ = [
    "CONTEXT_DILATIONS",
    "LARGE_MULTIPLIERS",
    "ContextModule",
    "context_layer_names",
    "initialise_identity",
    "initialise_random",
]

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
        with score_precision(scores.device):
            maps = scores.to(self.ctx_final.weight.dtype)
            if self.padding == "input":
                maps = functional.pad(maps, [sum(self.dilations)] * 4)
            for layer, dilation in zip(self.layers, self.dilations, strict=True):
                if self.padding == "layer":
                    maps = functional.pad(maps, [dilation] * 4)
                maps = relu(layer(maps))
            # Table 1: the last layer has no truncation, so scores may be negative.
            return self.ctx_final(maps)

    @property
    def layers(self) -> list[nn.Conv2d]:
        """The 3x3 layers, first to last."""
        return [getattr(self, name) for name in self.names]


def initialise_identity(module: ContextModule, sigma: float = 0.01, generator: torch.Generator | None = None) -> None:
    """Set every layer of `module` to (nearly) the identity, and the biases to zero.

    A center tap that connects channels b → a of the same group gets C/c_{i+1}; every other weight is noise. So layer i
    carries x·C/c_i in each map, and the last layer sums the maps to x again. Eq. 5 asks for noise far below C/c_{i+1},
    which is 1/32 in the widest layers. So the noise falls with the width, as in the reference code (network.py,
    build_context): `sigma` in the first two layers, then `sigma` divided by c_{i+1}/C. The final layer divides by the
    multiplier of the layer before it.

    Args:
        module: Context module, changed in place.
        sigma: Standard deviation of the noise that breaks ties between maps of one predecessor (eq. 5; the reference
            code has 0.01). The basic module has no ties and gets no noise, as in eq. 4; the reference code adds it
            there too.
        generator: Source of the noise; None: torch's global generator.
    """
    multiplier = 1
    for number, layer in enumerate([*module.layers, module.ctx_final]):
        wide = layer.in_channels != module.classes or layer.out_channels != module.classes
        if 2 <= number < len(module.layers):
            multiplier = layer.out_channels // module.classes
        _set_identity(layer, module.classes, sigma / multiplier if wide else 0.0, generator)


def initialise_random(module: ContextModule, generator: torch.Generator | None = None) -> None:
    """Initialize `module` with Glorot's uniform distribution and zero biases, for comparison.

    The paper found that this initialization does not work for context modules.
    """
    for layer in [*module.layers, module.ctx_final]:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        _zero_bias(layer)


@torch.no_grad()
def _set_identity(layer: nn.Conv2d, classes: int, sigma: float, generator: torch.Generator | None) -> None:
    """Set a layer to the identity over groups of channels, plus noise elsewhere if `sigma` > 0."""
    same = _same_group(layer.out_channels, layer.in_channels, classes)
    weight = layer.weight
    weight.normal_(0.0, sigma, generator=generator) if sigma > 0 else weight.zero_()
    centre = layer.kernel_size[0] // 2
    tap = weight[:, :, centre, centre]
    # The c_i/C maps of one class hold x·C/c_i each. Their sum is x, and this value makes it x·C/c_{i+1}.
    value = classes / layer.out_channels
    weight[:, :, centre, centre] = torch.where(same, torch.full_like(tap, value), tap)
    _zero_bias(layer)


def _same_group(outputs: int, inputs: int, classes: int) -> Tensor:
    """Return whether output a and input b have the same group: floor(a·C/c_{i+1}) = floor(b·C/c_i), eq. 5.

    Returns:
        Boolean mask, (outputs, inputs).
    """
    of_output = torch.arange(outputs) * classes // outputs
    of_input = torch.arange(inputs) * classes // inputs
    return of_output[:, None] == of_input[None, :]


def _zero_bias(layer: nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
