"""What a recipe says: everything that decides what a training run computes, typed and frozen."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.context import CONTEXT_DILATIONS
from model.front_end import FrontEndWidths
from model.geometry import MARGIN, OUTPUT_STRIDE
from model.network import ContextSpec, NetworkSpec, Upsampling
from pipeline.data.label_spaces import label_space

__all__ = ["STAGES", "NetworkConfig", "Recipe", "StageConfig", "StageInput", "StageName"]

StageName = Literal["front_end", "fine_tune", "context", "joint"]
STAGES: tuple[StageName, ...] = ("front_end", "fine_tune", "context", "joint")
StageInput = Literal["images", "features", "scores"]


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
    context_init: Literal["identity", "random"] = "identity"
    """First weights of the context module; random, which failed for the paper's authors, is for comparisons."""
    upsampling: Upsampling = "grid"
    """Last step; deconvolution is the Cityscapes release's, and makes training look at every pixel's label."""
    weights: str = "none"
    """First weights: none, torchvision (VGG-16), or the URI of a safetensors file: VGG-16's convolutions (BGR
    convention), or a network.safetensors to go on from, of the same or of other classes."""
    reference_window: tuple[int, int] | None = None
    """Height and width in pixels of the released deploy net's input."""

    def widths(self) -> FrontEndWidths:
        """Channels of every front-end layer."""
        return FrontEndWidths.vgg16(self.scale, self.fc)


class StageConfig(_Frozen):
    """One stage: front end, front end on the main data alone, context module on its maps, or both jointly. Zero
    iterations skip it."""

    iterations: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Images per step, over all workers."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Images per forward pass on one worker; the rest of its share is accumulated. Changes memory, and no result
    beyond rounding."""
    crop: Annotated[int, Field(ge=2 * MARGIN + OUTPUT_STRIDE)] | None = 628
    """Side of the training crops in pixels, 372 of them margin; None: whole images."""
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
        if self.crop is not None and (self.crop - 2 * MARGIN) % OUTPUT_STRIDE:
            raise ValueError(f"crop {self.crop} is not {2 * MARGIN} plus a multiple of {OUTPUT_STRIDE}")
        return self

    @property
    def cells(self) -> int | None:
        """Score cells along a side of a crop; None for whole images."""
        return None if self.crop is None else (self.crop - 2 * MARGIN) // OUTPUT_STRIDE


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
        """SHA-256 over all that changes what is computed."""
        cadence = ("checkpoint_every", "keep_checkpoints", "validate_every", "validation_images")
        ignored: dict[str, Any] = dict.fromkeys(cadence, True)
        ignored |= {stage: {"micro_batch"} for stage in STAGES}
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
