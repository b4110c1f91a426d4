"""Identity initialization of the context module (Sec. 3, eq. 4 and eq. 5).

Random initialization did not work for the authors. A module that passes its input through at first did.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.dilated.context import ContextModule

__all__ = ["initialise_identity", "initialise_random"]


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
