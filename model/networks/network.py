"""Network: a front end of any family, optionally with a context module, and the description that its file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from model.networks.context import ContextModule
from model.networks.dilated.geometry import DILATED
from model.networks.front_end import FrontEnd
from model.prediction.upsampling import GRID, Upsampling
from model.prediction.views import WorkingSize

__all__ = ["Color", "ContextSpec", "Network", "NetworkSpec"]

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
        family: Name of the front end's family, a key of `model.networks.families.FAMILIES`.
        family_options: Settings of the family that the shapes of its weights do not give; JSON.
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
    family: str = DILATED
    family_options: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= 255 or len(self.palette) != len(self.classes):
            raise ValueError(
                f"a network has 1 to 255 classes and one colour for each, "
                f"got {len(self.classes)} classes and {len(self.palette)} colours"
            )
        if self.reference_window is not None and self.family != DILATED:
            raise ValueError(f"reference_window is a window of the dilated family, not of {self.family}: leave it out")


class Network(nn.Module):
    """Network of a front end and, optionally, a context module, which goes on top of a front end of any family.

    Args:
        spec: Description of the network (classes, palette, upsampling, …).
        front_end: Front end with as many score channels as classes.
        context: Context module; None: the network is the bare front end.

    Raises:
        ValueError: If the upsampling has another stride than the score map, or begins before what the halo covers.
    """

    def __init__(self, spec: NetworkSpec, front_end: FrontEnd, context: ContextModule | None) -> None:
        super().__init__()
        stride = front_end.footprint.stride
        if spec.upsampling.stride != stride:
            raise ValueError(
                f"upsampling has stride {spec.upsampling.stride}, but a {spec.family} network's score map has "
                f"stride {stride}: use that"
            )
        footprint = front_end.footprint
        if footprint.border == "padded" and spec.upsampling.anchor < min(0, stride - footprint.halo):
            raise ValueError(
                f"upsampling has anchor {spec.upsampling.anchor}, but with a halo of {footprint.halo} pixels windows "
                f"hold cells from {stride - footprint.halo} on alone: state a larger halo"
            )
        self.spec = spec
        self.front_end = front_end
        self.context = context

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores, (N, C, h, w), of the front end's input (N, 3, H, W), BGR minus mean."""
        return self.add_context(self.front_end(images))

    def add_context(self, scores: Tensor) -> Tensor:
        """Return front-end scores after the context module, (N, C, h, w) → (N, C, h, w); unchanged without one."""
        return scores if self.context is None else self.context(scores)

    def score_map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the score map of an image of this height and width in pixels."""
        return self.front_end.score_map_size(height, width, self.spec.upsampling)

    def without_context(self) -> Network:
        """Return the bare front end of this network; the weights are shared, not copied."""
        return Network(replace(self.spec, context=None), self.front_end, None)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Names of the layers by part: those of the front end (`FrontEnd.parts`), and `context`."""
        context = () if self.context is None else (*self.context.names, "ctx_final")
        return {**self.front_end.parts, "context": context}

    @property
    def modules_with_weights(self) -> tuple[nn.Module, ...]:
        """Front end and context module; their layers have the names under which files store them."""
        return (self.front_end,) if self.context is None else (self.front_end, self.context)
