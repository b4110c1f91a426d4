"""Networks of the paper: the bare front end, Dilation7, Dilation8 and Dilation10."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from model.networks.context import CONTEXT_DILATIONS
from model.networks.families import build_network
from model.networks.front_end import FrontEndWidths
from model.networks.network import ContextSpec, Network, NetworkSpec
from model.prediction.upsampling import DECONVOLUTION

__all__ = ["dilation7", "dilation8", "dilation10", "front_end_only"]


def front_end_only(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> Network:
    """Build the bare front end (Sec. 4)."""
    return build_network(replace(spec, context=None), widths)


def dilation7(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> Network:
    """Build the KITTI network: seven context layers, each padded by its dilation (Appendix A)."""
    return _with_context(spec, widths, 7)


def dilation8(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    padding: Literal["layer", "input"] = "layer",
) -> Network:
    """Build the eight-layer network: CamVid's with `layer` padding, VOC's with `large=True, padding="input"`."""
    return _with_context(spec, widths, 8, padding, large=large)


def dilation10(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> Network:
    """Build the Cityscapes network: ten context layers and upsampling by deconvolution (Appendix A)."""
    return _with_context(replace(spec, upsampling=DECONVOLUTION), widths, 10)


def _with_context(
    spec: NetworkSpec,
    widths: FrontEndWidths | None,
    layers: int,
    padding: Literal["layer", "input"] = "layer",
    *,
    large: bool = False,
) -> Network:
    context = ContextSpec(CONTEXT_DILATIONS[layers], padding)
    return build_network(replace(spec, context=context), widths, large=large)
