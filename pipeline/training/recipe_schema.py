"""What a recipe says: everything that decides what a training run computes, typed and frozen."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, ClassVar, Literal

import tyro
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from model.context import CONTEXT_DILATIONS
from model.front_end import FrontEndWidths
from model.geometry import MARGIN, OUTPUT_STRIDE
from model.network import ContextSpec, NetworkSpec, Upsampling
from model.views import WorkingSize
from pipeline.data.label_spaces import OWN, Color, LabelEncoding, LabelSpace, label_space

__all__ = ["DERIVE", "STAGES", "NetworkConfig", "OwnClasses", "Recipe", "StageConfig", "StageInput", "StageName"]

# Value of a number that is derived from the data when a run begins; the recipes for users' own data use it.
DERIVE = -1

StageName = Literal["front_end", "fine_tune", "context", "joint"]
STAGES: tuple[StageName, ...] = ("front_end", "fine_tune", "context", "joint")
StageInput = Literal["images", "features", "scores"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Extended(_Frozen):
    """Settings that have grown since the first runs: a later field is written only where it is used.

    So recipes that do not use it keep their digest, their `recipe.json` and their checkpoints' bytes.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        unused = {
            name for name in self.later_fields if getattr(self, name) == type(self).model_fields[name].get_default()
        }
        return {name: value for name, value in written.items() if name not in unused}


class OwnClasses(_Frozen):
    """Classes of one's own data, as read from a classes file."""

    names: tuple[str, ...]
    """Class names, by class id."""
    palette: tuple[Color, ...]
    """RGB colors, by class id."""
    values: tuple[tuple[int, ...], ...]
    """Pixel values in label files, by class id."""
    ignored: tuple[int, ...]
    """Pixel values that count nowhere."""
    colors: tuple[tuple[Color, ...], ...]
    """RGB colors in color masks, by class id, as far as they are listed."""
    ignored_colors: tuple[Color, ...] = ()
    """RGB colors that count nowhere."""

    @classmethod
    def of(cls, space: LabelSpace) -> OwnClasses:
        """Return the classes of a label space that has an encoding of its own."""
        encoding = space.encoding
        if encoding is None:
            raise ValueError(f"label space {space.name} is a published one")
        return cls(
            names=space.classes,
            palette=space.palette,
            values=encoding.values,
            ignored=encoding.ignored,
            colors=encoding.colors,
            ignored_colors=encoding.ignored_colors,
        )

    def space(self) -> LabelSpace:
        """Return the label space in which label files are read."""
        encoding = LabelEncoding(self.values, self.ignored, self.colors, self.ignored_colors)
        return LabelSpace(OWN, self.names, self.palette, encoding=encoding)


class NetworkConfig(_Extended):
    """Shape of the network and origin of its first weights."""

    later_fields = frozenset({"layer_widths"})

    scale: Annotated[float, Field(ge=DERIVE, le=1)] = 1.0
    """Widths of the VGG-16 convolutions, as a share of the original's; -1: those of --network.weights, else an
    eighth."""
    fc: Annotated[int, Field(ge=1)] | None = None
    """Channels of fc6 and fc7; default: 4,096 times the scale."""
    context: Literal["basic", "large"] = "basic"
    """Channels of the context module (Table 1)."""
    layers: Literal[7, 8, 10] = 8
    """Layers of the context module: Dilation7, 8 or 10."""
    padding: Literal["layer", "input"] = "layer"
    """Padding of the context module: each layer by its dilation (urban), or once at the input (VOC)."""
    context_init: Literal["identity", "random"] = "identity"
    """First weights of the context module; random, which failed for the paper's authors, is for comparisons."""
    upsampling: Upsampling = "grid"
    """Last step; deconvolution is the Cityscapes release's, and makes training look at every pixel's label."""
    weights: str = "none"
    """First weights: none, torchvision (VGG-16), or the URI of a safetensors file: VGG-16's convolutions (BGR
    convention), or a network.safetensors to go on from, of the same or of other classes."""
    reference_window: tuple[int, int] | None = None
    """Height and width in pixels of the released deploy net's input."""

    layer_widths: Annotated[tuple[int, ...] | None, tyro.conf.Suppress] = None
    """Channels of conv1_1 … conv5_3, fc6 and fc7, adopted from a network; None: by scale and fc."""

    @model_validator(mode="after")
    def _scale_is_a_share(self) -> NetworkConfig:
        if self.scale != DERIVE and self.scale <= 0:
            raise ValueError(f"scale {self.scale} is neither a share above 0 nor {DERIVE}, which derives it")
        return self

    def widths(self) -> FrontEndWidths:
        """Return the channels of every front-end layer."""
        if self.layer_widths is None:
            return FrontEndWidths.vgg16(self.scale, self.fc)
        *convolutions, fc6, fc7 = self.layer_widths
        return FrontEndWidths(tuple(convolutions), fc6, fc7)


class StageConfig(_Frozen):
    """One stage: front end, front end on the main data alone, context module on its maps, or both jointly. Zero
    iterations skip it."""

    iterations: Annotated[int, Field(ge=DERIVE)] = 0
    """Optimizer steps; -1: derived from --epochs and the number of images."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Images per step, over all workers."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Images per forward pass on one worker; the rest of its share is accumulated. Changes memory, and no result
    beyond rounding."""
    crop: Annotated[int, Field(ge=DERIVE)] | None = 628
    """Side of the training crops in pixels, 372 of them margin; None: whole images; -1: derived from the images'
    sizes."""
    extra_data: bool = False
    """Draw images from --extra-data as well, as if both were one data set."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """adamw is for the small recipes; the paper's use sgd."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of weights; biases learn at twice this rate, as in the reference solver."""
    schedule: Literal["constant", "step", "one_cycle"] = "step"
    """step: times 0.1 every 100,000 steps, as in the reference solver; one_cycle: cosine up, then down."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd. 0.99 at 1e-4 has ten times the effective step of 0.9: not interchangeable."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of weights, never of biases; the value is the reference code's, the paper gives none."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """After fc6 and fc7. In the context stage, where the front end does not learn, it blurs maps of images that the
    front end knows by heart; 0 there, as in the paper, gives the maps of prediction."""

    @model_validator(mode="after")
    def _crop_fits_the_stride(self) -> StageConfig:
        if self.crop in (None, DERIVE):
            return self
        if self.crop < 2 * MARGIN + OUTPUT_STRIDE or (self.crop - 2 * MARGIN) % OUTPUT_STRIDE:
            raise ValueError(f"crop {self.crop} is not {2 * MARGIN} plus a multiple of {OUTPUT_STRIDE}")
        return self

    @property
    def cells(self) -> int | None:
        """Score cells along a side of a crop; None for whole images."""
        return None if self.crop is None else (self.crop - 2 * MARGIN) // OUTPUT_STRIDE


class Recipe(_Extended):
    """A training run. Runs with equal recipes and data give equal networks."""

    later_fields = frozenset({"classes", "resize"})
    # Settings that change nothing that is computed, only how often it is saved and looked at.
    cadence: ClassVar[tuple[str, ...]] = ("checkpoint_every", "keep_checkpoints", "validate_every", "validation_images")

    name: str
    """Name of the recipe from which this one was made."""
    label_space: str
    """Classes, palette and encoding of the label files; own: those of the data's classes file."""
    mean_bgr: tuple[float, float, float]
    """Mean that is subtracted from pixels (0–255); -1 -1 -1: that of the images, or of --network.weights."""
    network: NetworkConfig = NetworkConfig()
    front_end: StageConfig = StageConfig()
    fine_tune: StageConfig = StageConfig()
    context: StageConfig = StageConfig()
    joint: StageConfig = StageConfig()
    frozen_convolutions: bool = False
    """Keep conv1_1 … conv5_3 as they are, and compute their maps once per image instead of once per step."""
    mirror: bool = True
    """Mirror every other sample."""
    random_scale: tuple[float, float] | None = None
    """Range of the random factor by which images and labels are resized first (the reference code's option; whether
    the paper used it is not stated)."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Training checkpoints that stay; older ones are deleted."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between checkpoints (2,000 is the reference solver's)."""
    validate_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between validations; each stage's end is always validated."""
    validation_images: Annotated[int, Field(ge=0)] | None = None
    """Validate on only so many images, evenly spread, between stage ends; default: all."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of a class in the loss: (median frequency / its frequency) to this power; 0 is the paper's plain loss."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides initialisation, sample order, crops, scales, mirroring and dropout."""
    resize: tuple[int, ...] | None = None
    """Working size of training and prediction in pixels: the long side, or height and width; default: the images' own.
    The network keeps it, and masks have the images' own size."""
    classes: Annotated[OwnClasses | None, tyro.conf.Suppress] = None
    """Classes read from a classes file; None: those of the label space."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> Recipe:
        if self.network.context == "large" and self.network.layers != 8:
            raise ValueError(f"the large context module has 8 layers, not {self.network.layers}")
        low, high = self.random_scale or (1.0, 1.0)
        if not 0.1 <= low <= high <= 10:
            raise ValueError(f"random scale {self.random_scale} is not a range within 0.1–10, lowest first")
        return self

    @model_validator(mode="after")
    def _frozen_convolutions_need_weights(self) -> Recipe:
        if self.frozen_convolutions and self.network.weights == "none":
            raise ValueError("frozen convolutions need weights to freeze: set --network.weights")
        if self.frozen_convolutions and self.random_scale is not None:
            raise ValueError("frozen convolutions are computed once per image: they leave no room for --random-scale")
        return self

    @field_validator("resize")
    @classmethod
    def _is_a_working_size(cls, resize: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if resize is not None and not (len(resize) in (1, 2) and all(8 <= side <= 10_000 for side in resize)):
            raise ValueError("it needs a long side, or a height and a width, of 8 to 10,000 pixels each")
        return resize

    @model_validator(mode="after")
    def _derives_for_own_data_only(self) -> Recipe:
        if self.derived and not self.name.startswith("custom"):
            raise ValueError(
                f"{', '.join(self.derived)} = {DERIVE} is derived by the recipes custom and custom_vgg16 alone"
            )
        return self

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the numbers that are derived from the data before the run begins."""
        stages = [(name, self.stage(name)) for name in STAGES]
        return (
            *(f"{name}.iterations" for name, stage in stages if stage.iterations == DERIVE),
            *(f"{name}.crop" for name, stage in stages if stage.crop == DERIVE),
            *(["network.scale"] if self.network.scale == DERIVE and self.network.layer_widths is None else []),
            *(["mean_bgr"] if DERIVE in self.mean_bgr else []),
        )

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that have iterations, in order."""
        return tuple(name for name in STAGES if self.stage(name).iterations)

    def stage_input(self, name: StageName) -> StageInput:
        """What a stage's samples hold: images; conv5_3 maps where the convolutions are frozen; or score maps.

        Score maps of whole images are what the context stage learns on, as in the paper (Sec. 5), unless dropout in
        the front end or a random scale would make every look at an image a different one.
        """
        if name == "context" and self.context.dropout == 0 and self.random_scale is None:
            return "scores"
        return "features" if self.frozen_convolutions else "images"

    def stage(self, name: StageName) -> StageConfig:
        """The configuration of a stage."""
        config: StageConfig = getattr(self, name)
        return config

    def digest(self) -> str:
        """Return the SHA-256 over all that changes what is computed."""
        ignored: dict[str, Any] = dict.fromkeys(self.cadence, True)
        ignored |= {stage: {"micro_batch"} for stage in STAGES}
        return hashlib.sha256(self.model_dump_json(exclude=ignored).encode()).hexdigest()

    def with_cadence(self, request: Recipe) -> Recipe:
        """Return this recipe with those settings of `request` that change nothing that is computed."""
        changes: dict[str, Any] = {name: getattr(request, name) for name in self.cadence}
        for name in STAGES:
            micro_batch = request.stage(name).micro_batch
            changes[name] = self.stage(name).model_copy(update={"micro_batch": micro_batch})
        return self.model_copy(update=changes)

    def space(self) -> LabelSpace:
        """Return the classes and the encoding of the label files.

        Raises:
            ConfigError: If the label space is unknown.
        """
        return label_space(self.label_space) if self.classes is None else self.classes.space()

    def working_size(self) -> WorkingSize | None:
        """Return the size to which images are brought; None: their own."""
        if self.resize is None:
            return None
        if len(self.resize) == 1:
            return WorkingSize(long_side=self.resize[0])
        return WorkingSize(size=(self.resize[0], self.resize[1]))

    def spec(self) -> NetworkSpec:
        """Return the network's specification, provenance left empty."""
        space = self.space()
        return NetworkSpec(
            classes=space.classes,
            palette=space.palette,
            mean_bgr=self.mean_bgr,
            ignore_label=space.ignore_label,
            **_label_fields(space),
            resize=self.working_size(),
            context=ContextSpec(CONTEXT_DILATIONS[self.network.layers], self.network.padding),
            upsampling=self.network.upsampling,
            reference_window=self.network.reference_window,
        )


def _label_fields(space: LabelSpace) -> dict[str, Any]:
    """Return what a checkpoint says of label files, each field only where it says more than classes and palette do."""
    encoding = space.encoding
    if encoding is None:
        return {}
    plain = tuple((class_id,) for class_id in range(len(space.classes)))
    return {
        "label_values": None if encoding.values == plain else encoding.values,
        "label_ignore": None if encoding.ignored == (space.ignore_label,) else encoding.ignored,
        "label_colors": encoding.colors or None,
        "label_ignore_colors": encoding.ignored_colors or None,
    }
