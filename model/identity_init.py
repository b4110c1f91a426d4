"""Identity initialisation of the context module (Sec. 3, eq. 4 and eq. 5).

Random initialisation did not work for the authors; a module that starts by passing its input through did.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.context import ContextModule

__all__ = ["initialise_identity", "initialise_random"]


def initialise_identity(module: ContextModule, sigma: float = 0.01, generator: torch.Generator | None = None) -> None:
    """Sets every layer of `module` to (nearly) the identity, biases to zero.

    A centre tap that connects channels b → a of the same group gets C/c_{i+1}, all else is noise; so layer i
    carries x·C/c_i in each map, and the last layer sums them back to x.

    Args:
        module: changed in place.
        sigma: standard deviation of the noise that breaks ties between maps of one predecessor (eq. 5; 0.01 is
            the reference code's). The basic module has no ties and gets none, as in eq. 4.
        generator: source of the noise.
    """
    for layer in [*module.layers, module.ctx_final]:
        wide = layer.in_channels != module.classes or layer.out_channels != module.classes
        _set_identity(layer, module.classes, sigma if wide else 0.0, generator)


def initialise_random(module: ContextModule, generator: torch.Generator | None = None) -> None:
    """Glorot's uniform initialisation, which the paper found not to work here; kept for the comparison."""
    for layer in [*module.layers, module.ctx_final]:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        _zero_bias(layer)


@torch.no_grad()
def _set_identity(layer: nn.Conv2d, classes: int, sigma: float, generator: torch.Generator | None) -> None:
    same = _same_group(layer.out_channels, layer.in_channels, classes)
    weight = layer.weight
    weight.normal_(0.0, sigma, generator=generator) if sigma > 0 else weight.zero_()
    centre = layer.kernel_size[0] // 2
    tap = weight[:, :, centre, centre]
    # The c_i/C maps of one class hold x·C/c_i each: their sum is x again, and this value makes it x·C/c_{i+1}.
    value = classes / layer.out_channels
    weight[:, :, centre, centre] = torch.where(same, torch.full_like(tap, value), tap)
    _zero_bias(layer)


def _same_group(outputs: int, inputs: int, classes: int) -> Tensor:
    """(outputs, inputs) bool: floor(a·C/c_{i+1}) = floor(b·C/c_i), eq. 5."""
    of_output = torch.arange(outputs) * classes // outputs
    of_input = torch.arange(inputs) * classes // inputs
    return of_output[:, None] == of_input[None, :]


def _zero_bias(layer: nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
