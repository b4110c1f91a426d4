"""Front end plus context module, and the builders of the paper's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from model.context import CONTEXT_DILATIONS, LARGE_MULTIPLIERS, ContextModule
from model.front_end import FrontEnd, FrontEndWidths
from model.identity_init import initialise_identity
from model.views import WorkingSize

__all__ = [
    "Color",
    "ContextSpec",
    "DilatedNetwork",
    "NetworkSpec",
    "Upsampling",
    "build_network",
    "dilation7",
    "dilation8",
    "dilation10",
    "front_end_only",
]

Upsampling = Literal["grid", "deconvolution"]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ContextSpec:
    """Shape of a context module: dilations of its 3x3 layers, and padding per `layer` or once at the `input`."""

    dilations: tuple[int, ...]
    padding: Literal["layer", "input"] = "layer"


@dataclass(frozen=True)
class NetworkSpec:
    """All that a user of a network must know beside its weights.

    Attributes:
        classes: names, in the order of the score map's channels.
        palette: one RGB colour (0–255) per class.
        mean_bgr: mean of the training pixels (0–255), subtracted before the first layer.
        ignore_label: label value that counts nowhere.
        context: None for the bare front end.
        upsampling: `grid` interpolates probabilities between cells that sit on pixels (8i, 8j);
            `deconvolution` is the fixed bilinear 16/8/4 kernel on scores of the Cityscapes release.
        reference_window: height and width in pixels of the released deploy net's input, margin included.
        label_values: Pixel values in label files, by class id; None: the values are the class ids.
        label_ignore: Pixel values in label files that count nowhere; None: `ignore_label` alone.
        label_colors: RGB colors in color masks, by class id, as far as a classes file lists them; None: it lists none.
        label_ignore_colors: RGB colors in color masks that count nowhere; None: no color.
        resize: Working size to which images are brought before prediction; None: their own size.
        provenance: recipe, metrics, origin and licence of the weights; free JSON.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean_bgr: tuple[float, float, float]
    ignore_label: int = 255
    context: ContextSpec | None = None
    upsampling: Upsampling = "grid"
    reference_window: tuple[int, int] | None = None
    label_values: tuple[tuple[int, ...], ...] | None = None
    label_ignore: tuple[int, ...] | None = None
    label_colors: tuple[tuple[Color, ...], ...] | None = None
    label_ignore_colors: tuple[Color, ...] | None = None
    resize: WorkingSize | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= 255 or len(self.palette) != len(self.classes):
            raise ValueError(
                f"a network has 1 to 255 classes and one colour for each, "
                f"got {len(self.classes)} classes and {len(self.palette)} colours"
            )


class DilatedNetwork(nn.Module):
    """A front end, then a context module if there is one."""

    def __init__(self, spec: NetworkSpec, front_end: FrontEnd, context: ContextModule | None) -> None:
        super().__init__()
        self.spec, self.front_end, self.context = spec, front_end, context

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) BGR minus mean, margin included → scores (N, C, cells(H), cells(W))."""
        return self.add_context(self.front_end(images))

    def add_context(self, scores: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h, w); the scores themselves where there is no context module."""
        return scores if self.context is None else self.context(scores)

    def without_context(self) -> DilatedNetwork:
        """The bare front end of this network; weights are shared, not copied."""
        return DilatedNetwork(replace(self.spec, context=None), self.front_end, None)


def build_network(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    dropout: float = 0.5,
) -> DilatedNetwork:
    """Builds the network that `spec` describes, its context module initialised to the identity.

    Raises:
        ValueError: if the large module is asked for with other than eight layers.
    """
    front_end = FrontEnd(len(spec.classes), widths, dropout)
    if spec.context is None:
        return DilatedNetwork(spec, front_end, None)
    multipliers = LARGE_MULTIPLIERS if large else None
    context = ContextModule(len(spec.classes), spec.context.dilations, spec.context.padding, multipliers)
    initialise_identity(context)
    return DilatedNetwork(spec, front_end, context)


def front_end_only(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """The bare front end (Sec. 4)."""
    return build_network(replace(spec, context=None), widths)


def dilation7(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """The KITTI network: seven context layers, each padded by its dilation (Appendix A)."""
    return _with_context(spec, widths, 7)


def dilation8(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    padding: Literal["layer", "input"] = "layer",
) -> DilatedNetwork:
    """The eight-layer network: CamVid's with `layer` padding, VOC's with `large=True, padding="input"`."""
    return _with_context(spec, widths, 8, padding, large=large)


def dilation10(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """The Cityscapes network: ten context layers and upsampling by deconvolution (Appendix A)."""
    return _with_context(replace(spec, upsampling="deconvolution"), widths, 10)


def _with_context(
    spec: NetworkSpec,
    widths: FrontEndWidths | None,
    layers: int,
    padding: Literal["layer", "input"] = "layer",
    *,
    large: bool = False,
) -> DilatedNetwork:
    context = ContextSpec(CONTEXT_DILATIONS[layers], padding)
    return build_network(replace(spec, context=context), widths, large=large)
