"""Families of front ends by name, and the network that a description asks for."""

from __future__ import annotations

from model.networks.context import LARGE_MULTIPLIERS, ContextModule, initialise_identity
from model.networks.dilated.front_end import DilatedFrontEnd
from model.networks.dilated.geometry import DILATED
from model.networks.front_end import FrontEnd, FrontEndWidths
from model.networks.network import Network, NetworkSpec

__all__ = ["FAMILIES", "build_network"]

FAMILIES: dict[str, type[FrontEnd]] = {DILATED: DilatedFrontEnd}


def build_network(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    dropout: float = 0.5,
) -> Network:
    """Build the network that `spec` describes; its context module is initialized to the identity.

    Args:
        spec: Description of the network.
        widths: Channels of the front end's layers; None: VGG-16's widths.
        large: Whether the context module is the large one of Table 1; otherwise the basic one.
        dropout: Probability of dropping a channel value in the front end during training.

    Raises:
        KeyError: If the family is unknown.
        ValueError: If `large` is combined with a number of layers other than eight.
    """
    front_end = FAMILIES[spec.family].build(spec, widths, dropout)
    if spec.context is None:
        return Network(spec, front_end, None)
    multipliers = LARGE_MULTIPLIERS if large else None
    context = ContextModule(len(spec.classes), spec.context.dilations, spec.context.padding, multipliers)
    initialise_identity(context)
    return Network(spec, front_end, context)
