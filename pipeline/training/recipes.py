"""Recipes: everything that decides what a training run computes, typed, frozen, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.context import CONTEXT_DILATIONS
from model.front_end import FrontEndWidths
from model.geometry import MARGIN, OUTPUT_STRIDE
from model.network import ContextSpec, NetworkSpec, Upsampling
from pipeline.data.label_spaces import label_space
from pipeline.errors import ConfigError

__all__ = ["RECIPES", "STAGES", "NetworkConfig", "Recipe", "StageConfig", "StageName", "recipe"]

StageName = Literal["front_end", "context", "joint"]
STAGES: tuple[StageName, ...] = ("front_end", "context", "joint")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetworkConfig(_Frozen):
    """Shape of the network and origin of its first weights."""

    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Widths of the VGG-16 convolutions, as a share of the original's."""
    fc: Annotated[int, Field(ge=1)] | None = None
    """Channels of fc6 and fc7; default: 4,096 times the scale."""
    context: Literal["basic", "large"] = "basic"
    """Channels of the context module (Table 1)."""
    layers: Literal[7, 8, 10] = 8
    """Layers of the context module: Dilation7, 8 or 10."""
    padding: Literal["layer", "input"] = "layer"
    """Padding of the context module: each layer by its dilation (urban), or once at the input (VOC)."""
    upsampling: Upsampling = "grid"
    """Last step; deconvolution is the Cityscapes release's."""
    weights: str = "none"
    """First weights of the convolutions: none, torchvision, or the URI of a safetensors file (BGR convention)."""
    reference_window: tuple[int, int] | None = None
    """Height and width in pixels of the released deploy net's input."""

    def widths(self) -> FrontEndWidths:
        """Channels of every front-end layer."""
        return FrontEndWidths.vgg16(self.scale, self.fc)


class StageConfig(_Frozen):
    """One stage: front end, context module on its maps, or both jointly. Zero iterations skip it."""

    iterations: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Images per step, over all workers."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Images per forward pass on one worker; the rest of its share is accumulated. Changes memory, not results."""
    crop: Annotated[int, Field(ge=2 * MARGIN + OUTPUT_STRIDE)] = 628
    """Side of the training crops in pixels, 372 of them margin."""
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
        if (self.crop - 2 * MARGIN) % OUTPUT_STRIDE:
            raise ValueError(f"crop {self.crop} is not {2 * MARGIN} plus a multiple of {OUTPUT_STRIDE}")
        return self

    @property
    def cells(self) -> int:
        """Score cells along a side of a crop."""
        return (self.crop - 2 * MARGIN) // OUTPUT_STRIDE


class Recipe(_Frozen):
    """A training run. Runs with equal recipes and data give equal networks."""

    name: str
    """Of the recipe this one was made from."""
    label_space: str
    """Classes, palette and encoding of the label files."""
    mean_bgr: tuple[float, float, float]
    """Subtracted from pixels (0–255)."""
    network: NetworkConfig = NetworkConfig()
    front_end: StageConfig = StageConfig()
    context: StageConfig = StageConfig()
    joint: StageConfig = StageConfig()
    frozen_convolutions: bool = False
    """Keep conv1_1 … conv5_3 as they are, and compute their maps once per image instead of once per step."""
    mirror: bool = True
    """Mirror every other sample."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between checkpoints (2,000 is the reference solver's)."""
    validate_every: Annotated[int, Field(ge=1)] = 2000
    """Iterations between validations; each stage's end is always validated."""
    validation_images: Annotated[int, Field(ge=0)] | None = None
    """Validate on only so many images, evenly spread, between stage ends; default: all."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of a class in the loss: (median frequency / its frequency) to this power; 0 is the paper's plain loss."""
    seed: int = 0
    """Decides initialisation, sample order, crops, mirroring and dropout."""

    @model_validator(mode="after")
    def _frozen_convolutions_need_weights(self) -> Recipe:
        if self.frozen_convolutions and self.network.weights == "none":
            raise ValueError("frozen convolutions need weights to freeze: set --network.weights")
        return self

    def stage(self, name: StageName) -> StageConfig:
        """The configuration of a stage."""
        config: StageConfig = getattr(self, name)
        return config

    def digest(self) -> str:
        """SHA-256 over all that changes what is computed."""
        ignored = {"checkpoint_every", "validate_every", "validation_images"}
        return hashlib.sha256(self.model_dump_json(exclude=ignored).encode()).hexdigest()

    def spec(self) -> NetworkSpec:
        """The network's specification, provenance left empty."""
        space = label_space(self.label_space)
        return NetworkSpec(
            classes=space.classes,
            palette=space.palette,
            mean_bgr=self.mean_bgr,
            ignore_label=space.ignore_label,
            context=ContextSpec(CONTEXT_DILATIONS[self.network.layers], self.network.padding),
            upsampling=self.network.upsampling,
            reference_window=self.network.reference_window,
        )


def recipe(name: str) -> Recipe:
    """Looks a recipe up.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


# The mean with which the VGG-16 weights in BGR convention were trained.
_VGG_MEAN = (103.939, 116.779, 123.68)
_CAMVID_MEAN = (110.70313206, 108.77808759, 105.41212523)

_STREET_SCENES = Recipe(
    name="street_scenes",
    label_space="street_scenes",
    mean_bgr=(116.0, 112.0, 108.0),
    # Narrow enough for two cores; the demo's drawn scenes need no pre-training.
    network=NetworkConfig(scale=0.125, fc=96),
    # A crop of 612 pixels holds the height of a scene, so that most of what is computed is not margin.
    front_end=StageConfig(
        iterations=900, batch=2, crop=612, optimizer="adamw", learning_rate=1e-3, schedule="one_cycle",
        weight_decay=1e-2, dropout=0.1,
    ),
    context=StageConfig(
        iterations=100, batch=2, crop=612, optimizer="adamw", learning_rate=1e-3, schedule="one_cycle",
        weight_decay=1e-2,
    ),
    joint=StageConfig(
        iterations=160, batch=2, crop=612, optimizer="adamw", learning_rate=5e-4, schedule="one_cycle",
        weight_decay=1e-2, dropout=0.1,
    ),
    class_balance=0.5,
    checkpoint_every=150,
    validate_every=450,
    validation_images=12,
)  # fmt: skip

_CAMVID_DILATION8 = Recipe(
    # Appendix A: front end 20K iterations of eight 628-pixel crops at 1e-4, momentum 0.99; no separate context stage;
    # joint training on one 852-pixel crop at 1e-5, momentum 0.9. Its iterations are not stated: 20K chosen, as many
    # as the front end's.
    name="camvid_dilation8",
    label_space="camvid_segnet",
    mean_bgr=_CAMVID_MEAN,
    network=NetworkConfig(weights="torchvision", reference_window=(900, 1100)),
    front_end=StageConfig(iterations=20_000, batch=8, micro_batch=2, learning_rate=1e-4, momentum=0.99, dropout=0.5),
    joint=StageConfig(iterations=20_000, batch=1, crop=852, learning_rate=1e-5, momentum=0.9, dropout=0.5),
)

_CAMVID_FROZEN = Recipe(
    # For two cores: VGG-16's convolutions stay as ImageNet left them, only a narrow head and the context module
    # learn. fc6 keeps its 7x7 window and dilation 4, so the geometry is Dilation8's own.
    name="camvid_frozen_vgg16",
    label_space="camvid_segnet",
    mean_bgr=_VGG_MEAN,
    network=NetworkConfig(fc=256, weights="torchvision", reference_window=(900, 1100)),
    front_end=StageConfig(
        iterations=1840, batch=2, crop=852, optimizer="adamw", learning_rate=1e-3, schedule="one_cycle",
        weight_decay=1e-2, dropout=0.5,
    ),
    context=StageConfig(
        iterations=360, batch=2, crop=852, optimizer="adamw", learning_rate=5e-4, schedule="one_cycle",
        weight_decay=1e-2, dropout=0.5,
    ),
    joint=StageConfig(
        iterations=360, batch=2, crop=852, optimizer="adamw", learning_rate=2e-4, schedule="one_cycle",
        weight_decay=1e-2, dropout=0.5,
    ),
    frozen_convolutions=True,
    class_balance=0.5,
    checkpoint_every=200,
    validate_every=460,
    validation_images=34,
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = {each.name: each for each in (_STREET_SCENES, _CAMVID_DILATION8, _CAMVID_FROZEN)}
