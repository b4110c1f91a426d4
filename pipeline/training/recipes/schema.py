"""Typed, frozen settings of a recipe: everything that decides the result of a training run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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

from model.networks.dilated.geometry import DILATED, FOOTPRINT
from pipeline.data.label_spaces import OWN, Color, LabelEncoding, LabelSpace, label_space
from pipeline.options import option

if TYPE_CHECKING:
    # These modules import torch, which takes seconds; --help does without it.
    from model.networks.front_end import FrontEndWidths
    from model.networks.network import NetworkSpec
    from model.prediction.geometry import Footprint
    from model.prediction.views import WorkingSize

__all__ = ["DERIVE", "STAGES", "NetworkConfig", "OwnClasses", "Recipe", "StageConfig", "StageInput", "StageName"]

# Placeholder for a number that is derived from the data when a run begins; used by the recipes for own data.
DERIVE = -1

StageName = Literal["front_end", "fine_tune", "context", "joint"]
STAGES: tuple[StageName, ...] = ("front_end", "fine_tune", "context", "joint")
StageInput = Literal["images", "features", "scores"]
_FRONT_END_PARTS = ("features", "head", "scores")


class _Frozen(BaseModel):
    """Immutable settings that refuse unknown fields; field docstrings become the texts of --help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Extended(_Frozen):
    """Settings with fields that were added after the first runs; such a field is serialized only if it is used.

    Recipes that do not use the field therefore keep their digest, their `recipe.json` and the bytes of their
    checkpoints.

    Attributes:
        later_fields: Names of the fields that are left out while they have their default value.
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
    """Classes of the user's own data, as read from a classes file."""

    names: tuple[str, ...]
    """Class names, by class id."""
    palette: tuple[Color, ...]
    """RGB color of each class in the palette, by class id."""
    values: tuple[tuple[int, ...], ...]
    """Pixel values in label files, by class id."""
    ignored: tuple[int, ...]
    """Pixel values in label files that are ignored."""
    colors: tuple[tuple[Color, ...], ...]
    """RGB colors in color masks, by class id; empty where the classes file lists none."""
    ignored_colors: tuple[Color, ...] = ()
    """RGB colors in color masks that are ignored."""

    @classmethod
    def of(cls, space: LabelSpace) -> OwnClasses:
        """Return the classes of a label space that was read from a classes file.

        Raises:
            ValueError: If the label space is a published one, which has no encoding of its own.
        """
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
        """Return the label space that decodes the label files."""
        encoding = LabelEncoding(self.values, self.ignored, self.colors, self.ignored_colors)
        return LabelSpace(OWN, self.names, self.palette, encoding=encoding)


class NetworkConfig(_Extended):
    """Shape of the network and source of its initial weights."""

    later_fields = frozenset({"layer_widths", "family", "family_options"})

    family: str = DILATED
    """Family of the front end, on which the context module goes: dilated."""
    family_options: Annotated[dict[str, int | float | str], option("NAME VALUE …", "none")] = {}
    """Settings of the family that the widths do not give; dilated has none."""
    scale: Annotated[float, Field(ge=DERIVE, le=1)] = 1.0
    """Width of the convolutions as a fraction of VGG-16's (0–1); -1: the widths of --network.weights, or an eighth
    without that option."""
    fc: Annotated[Annotated[int, Field(ge=1)] | None, option("INT", "4,096 times the scale")] = None
    """Channels of fc6 and of fc7."""
    context: Literal["basic", "large"] = "basic"
    """Variant of the context module, which decides its channels (Table 1)."""
    layers: Literal[7, 8, 10] = 8
    """Number of layers of the context module: 7 (Dilation7), 8 (Dilation8) or 10 (Dilation10)."""
    padding: Literal["layer", "input"] = "layer"
    """Zero padding of the context module: layer pads each layer by its dilation (urban networks), input pads once at
    the input (VOC)."""
    context_init: Literal["identity", "random"] = "identity"
    """Initial weights of the context module; random is for comparisons only, as it failed for the paper's authors."""
    upsampling: Literal["grid", "deconvolution"] = "grid"
    """Upsampling after the last layer: grid, or the Cityscapes release's deconvolution, which makes the loss cover the
    label of every pixel."""
    weights: str = "none"
    """Initial weights: none (random), torchvision (VGG-16), or the URI of a safetensors file. The file holds VGG-16's
    convolutions (BGR convention), or it is a network.safetensors of the same or of other classes to continue from."""
    reference_window: Annotated[tuple[int, int] | None, option("HEIGHT WIDTH", "no reference geometry")] = None
    """Height and width in pixels of the input of the released deploy net, margin included."""

    layer_widths: Annotated[tuple[int, ...] | None, tyro.conf.Suppress] = None
    """Channels of conv1_1 … conv5_3, fc6 and fc7, adopted from a network; None: computed from scale and fc."""

    @model_validator(mode="after")
    def _scale_is_a_share(self) -> NetworkConfig:
        if self.scale != DERIVE and self.scale <= 0:
            raise ValueError(f"scale {self.scale} is neither a share above 0 nor {DERIVE}, which derives it")
        return self

    @field_validator("family")
    @classmethod
    def _family_is_known(cls, family: str) -> str:
        if family != DILATED:
            from model.networks.families import FAMILIES

            if family not in FAMILIES:
                raise ValueError(f"family {family} is unknown: choose from {', '.join(FAMILIES)}")
        return family

    def widths(self) -> FrontEndWidths:
        """Return the channels of every front-end layer."""
        from model.networks.front_end import FrontEndWidths

        if self.layer_widths is None:
            return FrontEndWidths.vgg16(self.scale, self.fc)
        *convolutions, fc6, fc7 = self.layer_widths
        return FrontEndWidths(tuple(convolutions), fc6, fc7)


Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StageConfig(_Extended):
    """One stage of a recipe: data, optimizer and schedule. Zero iterations skip the stage."""

    later_fields = frozenset({"rate_factors"})

    iterations: Annotated[int, Field(ge=DERIVE)] = 0
    """Number of optimizer steps; 0 skips the stage; -1: derived from --epochs and the number of images."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Images per optimizer step, summed over all workers."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Most images per forward pass on one worker; gradients are accumulated over its share of the batch. Changes
    memory, and no result beyond rounding."""
    crop: Annotated[int, Field(ge=DERIVE)] | None = 628
    """Side of the training crops in pixels, 372 of them margin in the dilated family; None: whole images; -1: derived
    from the sizes of the images."""
    extra_data: bool = False
    """Draw images from --extra-data as well, as if both were one data set."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer; the recipes of the paper use sgd, the small recipes use adamw."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate of weights; biases learn at twice this rate, as in the reference solver."""
    schedule: Literal["constant", "step", "one_cycle"] = "step"
    """Schedule of the learning rate. constant: no change; step: times 0.1 every 100,000 steps, as in the reference
    solver; one_cycle: cosine up, then down to zero."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd. The values are not interchangeable: 0.99 at 1e-4 has ten times the effective step of 0.9."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of weights; biases have none. The default is the reference code's, as the paper gives no value."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropout after fc6 and fc7. In the context stage, where the front end does not learn, dropout blurs
    the maps of images that the front end has memorized; 0, as in the paper, gives the maps of prediction."""

    rate_factors: Annotated[dict[str, Factor], option("PART FACTOR …", "1 for every part")] = {}
    """Learning rates of parts of the network (features, head, scores, context) as multiples of the stage's; 0 freezes a
    part."""


class Recipe(_Extended):
    """Settings of a training run; runs with equal recipes and equal data yield equal networks.

    Attributes:
        cadence: Names of the settings that change how often results are saved and validated, but no result.
    """

    later_fields = frozenset({"classes", "resize"})
    # The digest leaves these settings out, so they may change when a run is resumed.
    cadence: ClassVar[tuple[str, ...]] = ("checkpoint_every", "keep_checkpoints", "validate_every", "validation_images")

    name: str
    """Name of the recipe from which these settings start."""
    label_space: str
    """Name of the label space: classes, palette and encoding of the label files; own: read from a classes file."""
    mean_bgr: tuple[float, float, float]
    """BGR mean (0–255) that is subtracted from pixels; -1 -1 -1: the mean of the images, or of --network.weights."""
    network: NetworkConfig = NetworkConfig()
    """Shape of the network and source of its initial weights."""
    front_end: StageConfig = StageConfig()
    """Stage that trains the front end; zero iterations skip it."""
    fine_tune: StageConfig = StageConfig()
    """Stage that trains the front end on the main data alone; zero iterations skip it."""
    context: StageConfig = StageConfig()
    """Stage that trains the context module on maps of the front end; zero iterations skip it."""
    joint: StageConfig = StageConfig()
    """Stage that trains front end and context module jointly; zero iterations skip it."""
    frozen_convolutions: bool = False
    """Keep the weights of the part features (conv1_1 … conv5_3), and compute its maps once per image instead of once
    per step."""
    mirror: bool = True
    """Mirror each sample left to right with probability 0.5."""
    random_scale: Annotated[tuple[float, float] | None, option("LOWEST HIGHEST", "no resizing")] = None
    """Range of the random factor by which images and labels are resized before cropping. The reference code has this
    option; the paper does not mention it."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Number of training checkpoints to keep; older ones are deleted."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between checkpoints; the default of 2,000 is the reference solver's."""
    validate_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between validations; the end of each stage is always validated."""
    validation_images: Annotated[Annotated[int, Field(ge=0)] | None, option("INT", "all")] = None
    """Number of images, evenly spread, in validations between stage ends; 0 skips these."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Power p (0–1) of the class weights (median frequency / class frequency)^p in the loss; 0 gives the paper's
    unweighted loss."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of initialization, sample order, crops, scales, mirroring and dropout."""
    resize: Annotated[tuple[int, ...] | None, option("LONG_SIDE | HEIGHT WIDTH", "the size of each image")] = None
    """Working size in pixels of training and prediction: the long side, or height and width. The network file stores
    it, and masks keep the original size."""
    classes: Annotated[OwnClasses | None, tyro.conf.Suppress] = None
    """Classes read from a classes file; None: the classes of the label space."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> Recipe:
        if self.network.context == "large" and self.network.layers != 8:
            raise ValueError(f"the large context module has 8 layers, not {self.network.layers}")
        low, high = self.random_scale or (1.0, 1.0)
        if not 0.1 <= low <= high <= 10:
            raise ValueError(f"random scale {self.random_scale} is not a range within 0.1–10, lowest first")
        return self

    @model_validator(mode="after")
    def _crops_fit_the_network(self) -> Recipe:
        for name in STAGES:
            crop = self.stage(name).crop
            if crop not in (None, DERIVE):
                try:
                    self.footprint().check_crop(crop)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _rate_factors_name_parts(self) -> Recipe:
        for name in STAGES:
            parts = {"context": ("context",), "joint": (*_FRONT_END_PARTS, "context")}.get(name, _FRONT_END_PARTS)
            factors = self.stage(name).rate_factors
            if unknown := sorted(set(factors) - set(parts)):
                raise ValueError(
                    f"{name}: rate_factors name {unknown[0]!r}, which is no part that this stage trains: choose from "
                    f"{', '.join(parts)}"
                )
            if all(factors.get(part, 1) == 0 or part in self.frozen_parts for part in parts):
                raise ValueError(f"{name}: rate_factors freeze every part that the stage trains: leave one to learn")
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
        """Names of the settings that are still to be derived from the data before the run begins."""
        stages = [(name, self.stage(name)) for name in STAGES]
        return (
            *(f"{name}.iterations" for name, stage in stages if stage.iterations == DERIVE),
            *(f"{name}.crop" for name, stage in stages if stage.crop == DERIVE),
            *(["network.scale"] if self.network.scale == DERIVE and self.network.layer_widths is None else []),
            *(["mean_bgr"] if DERIVE in self.mean_bgr else []),
        )

    @property
    def stages(self) -> tuple[StageName, ...]:
        """Names of the stages that have iterations, in order."""
        return tuple(name for name in STAGES if self.stage(name).iterations)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Parts of the front end that never learn, and whose maps are therefore computed once per image."""
        return ("features",) if self.frozen_convolutions else ()

    def footprint(self) -> Footprint:
        """Return the footprint of the front end."""
        if self.network.family == DILATED:
            return FOOTPRINT
        from model.networks.families import FAMILIES

        return FAMILIES[self.network.family].footprint_of(self.network.family_options)

    def stage_input(self, name: StageName) -> StageInput:
        """Return the input of a stage's samples: images, maps before the head (frozen convolutions), or score maps.

        The context stage learns on score maps of whole images, as in the paper (Sec. 5). With dropout in the front end
        or a random scale, the maps of an image differ at every step. The stage then starts from the maps before the
        head, or from images.
        """
        if name == "context" and self.context.dropout == 0 and self.random_scale is None:
            return "scores"
        return "features" if self.frozen_convolutions else "images"

    def stage(self, name: StageName) -> StageConfig:
        """Return the configuration of a stage."""
        config: StageConfig = getattr(self, name)
        return config

    def digest(self) -> str:
        """Return the SHA-256 digest (hex) over all settings that change the result."""
        # Cadence and micro-batches change no result beyond rounding.
        ignored: dict[str, Any] = dict.fromkeys(self.cadence, True)
        ignored |= {stage: {"micro_batch"} for stage in STAGES}
        return hashlib.sha256(self.model_dump_json(exclude=ignored).encode()).hexdigest()

    def with_cadence(self, request: Recipe) -> Recipe:
        """Return this recipe with the cadence and the micro-batches of `request`, which change no result."""
        changes: dict[str, Any] = {name: getattr(request, name) for name in self.cadence}
        for name in STAGES:
            micro_batch = request.stage(name).micro_batch
            changes[name] = self.stage(name).model_copy(update={"micro_batch": micro_batch})
        return self.model_copy(update=changes)

    def space(self) -> LabelSpace:
        """Return the label space: classes, palette and encoding of the label files.

        Raises:
            ConfigError: If the label space is unknown.
        """
        return label_space(self.label_space) if self.classes is None else self.classes.space()

    def working_size(self) -> WorkingSize | None:
        """Return the size to which images are resized; None if they keep their original size."""
        from model.prediction.views import WorkingSize

        if self.resize is None:
            return None
        if len(self.resize) == 1:
            return WorkingSize(long_side=self.resize[0])
        return WorkingSize(size=(self.resize[0], self.resize[1]))

    def spec(self) -> NetworkSpec:
        """Return the network's specification with an empty provenance."""
        from model.networks.context import CONTEXT_DILATIONS
        from model.networks.families import FAMILIES
        from model.networks.network import ContextSpec, NetworkSpec
        from model.prediction.upsampling import NAMED

        space = self.space()
        return NetworkSpec(
            classes=space.classes,
            palette=space.palette,
            mean_bgr=self.mean_bgr,
            ignore_label=space.ignore_label,
            **_label_fields(space),
            resize=self.working_size(),
            context=ContextSpec(CONTEXT_DILATIONS[self.network.layers], self.network.padding),
            upsampling=FAMILIES[self.network.family].upsampling or NAMED[self.network.upsampling],
            reference_window=self.network.reference_window if self.network.family == DILATED else None,
            family=self.network.family,
            family_options=self.network.family_options,
        )


def _label_fields(space: LabelSpace) -> dict[str, Any]:
    """Return the label fields of a network's specification; a field is None where classes and palette imply it."""
    encoding = space.encoding
    if encoding is None:
        return {}
    # Label files that hold the class ids themselves need no table of values.
    plain = tuple((class_id,) for class_id in range(len(space.classes)))
    return {
        "label_values": None if encoding.values == plain else encoding.values,
        "label_ignore": None if encoding.ignored == (space.ignore_label,) else encoding.ignored,
        "label_colors": encoding.colors or None,
        "label_ignore_colors": encoding.ignored_colors or None,
    }
