"""Network of front end and context module, and builders of the paper's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from model.dilated.context import CONTEXT_DILATIONS, LARGE_MULTIPLIERS, ContextModule, initialise_identity
from model.dilated.front_end import FrontEnd, FrontEndWidths
from model.prediction.geometry import OUTPUT_STRIDE
from model.prediction.upsampling import DECONVOLUTION, GRID, Upsampling
from model.prediction.views import WorkingSize

__all__ = [
    "Color",
    "ContextSpec",
    "DilatedNetwork",
    "NetworkSpec",
    "build_network",
    "dilation7",
    "dilation8",
    "dilation10",
    "front_end_only",
]

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ContextSpec:
    """Shape of a context module.

    Attributes:
        dilations: Dilations of the 3x3 layers.
        padding: Place of the zero padding: in every `layer`, or once at the `input`.
    """

    dilations: tuple[int, ...]
    padding: Literal["layer", "input"] = "layer"


@dataclass(frozen=True)
class NetworkSpec:
    """Description of a network beside its weights: everything that prediction and its users need.

    Attributes:
        classes: Class names, in the order of the score map's channels.
        palette: RGB color of each class, 0–255.
        mean_bgr: Mean of the training pixels, 0–255, subtracted before the first layer.
        ignore_label: Label value that counts nowhere.
        context: Shape of the context module; None: the bare front end.
        upsampling: Upsampling of the score map to the image's pixels.
        reference_window: Height and width in pixels of the released deploy net's input, margin included; None: the
            network has no `reference` geometry.
        label_values: Pixel values in label files, by class id; None: the values are the class ids.
        label_ignore: Pixel values in label files that count nowhere; None: `ignore_label` alone.
        label_colors: RGB colors in color masks, by class id, if a classes file lists them; None: it lists none.
        label_ignore_colors: RGB colors in color masks that count nowhere; None: no color.
        resize: Working size to which images are resized before prediction; None: their own size.
        provenance: Recipe, metrics, origin and license of the weights; free JSON.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean_bgr: tuple[float, float, float]
    ignore_label: int = 255
    context: ContextSpec | None = None
    upsampling: Upsampling = GRID
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
    """Network of a front end and, optionally, a context module.

    Args:
        spec: Description of the network (classes, palette, upsampling, …).
        front_end: Front end with as many score channels as classes.
        context: Context module; None: the network is the bare front end.

    Raises:
        ValueError: If the upsampling has another stride than the score map.
    """

    def __init__(self, spec: NetworkSpec, front_end: FrontEnd, context: ContextModule | None) -> None:
        super().__init__()
        if spec.upsampling.stride != OUTPUT_STRIDE:
            raise ValueError(
                f"upsampling has stride {spec.upsampling.stride}, but a dilated network's score map has "
                f"stride {OUTPUT_STRIDE}: use that"
            )
        self.spec = spec
        self.front_end = front_end
        self.context = context

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, (N, C, cells(H), cells(W)), of images (N, 3, H, W), BGR minus mean, margin included."""
        return self.add_context(self.front_end(images))

    def add_context(self, scores: Tensor) -> Tensor:
        """Return front-end scores after the context module, (N, C, h, w) → (N, C, h, w); unchanged without one."""
        return scores if self.context is None else self.context(scores)

    def without_context(self) -> DilatedNetwork:
        """Return the bare front end of this network; the weights are shared, not copied."""
        return DilatedNetwork(replace(self.spec, context=None), self.front_end, None)


def build_network(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    dropout: float = 0.5,
) -> DilatedNetwork:
    """Build the network that `spec` describes; its context module is initialized to the identity.

    Args:
        spec: Description of the network.
        widths: Channels of the front end's layers; None: VGG-16's widths.
        large: Whether the context module is the large one of Table 1; otherwise the basic one.
        dropout: Probability of dropping a channel value after fc6 and fc7 during training.

    Raises:
        ValueError: If `large` is combined with a number of layers other than eight.
    """
    front_end = FrontEnd(len(spec.classes), widths, dropout)
    if spec.context is None:
        return DilatedNetwork(spec, front_end, None)
    multipliers = LARGE_MULTIPLIERS if large else None
    context = ContextModule(len(spec.classes), spec.context.dilations, spec.context.padding, multipliers)
    initialise_identity(context)
    return DilatedNetwork(spec, front_end, context)


def front_end_only(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """Build the bare front end (Sec. 4)."""
    return build_network(replace(spec, context=None), widths)


def dilation7(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """Build the KITTI network: seven context layers, each padded by its dilation (Appendix A)."""
    return _with_context(spec, widths, 7)


def dilation8(
    spec: NetworkSpec,
    widths: FrontEndWidths | None = None,
    *,
    large: bool = False,
    padding: Literal["layer", "input"] = "layer",
) -> DilatedNetwork:
    """Build the eight-layer network: CamVid's with `layer` padding, VOC's with `large=True, padding="input"`."""
    return _with_context(spec, widths, 8, padding, large=large)


def dilation10(spec: NetworkSpec, widths: FrontEndWidths | None = None) -> DilatedNetwork:
    """Build the Cityscapes network: ten context layers and upsampling by deconvolution (Appendix A)."""
    return _with_context(replace(spec, upsampling=DECONVOLUTION), widths, 10)


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
