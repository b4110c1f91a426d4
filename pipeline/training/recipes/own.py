"""Recipes of this project: the user's own classes, the demo's scenes, and CamVid from VGG-16's convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.data.label_spaces import OWN
from pipeline.training.recipes.schema import DERIVE, NetworkConfig, Recipe, StageConfig

__all__ = ["SMALL_RECIPES", "camvid_frozen_vgg16", "camvid_vgg16", "custom", "custom_vgg16", "street_scenes"]

# BGR mean (0–255) of the images on which the VGG-16 weights in BGR convention were trained.
_VGG_MEAN = (103.939, 116.779, 123.68)


def custom() -> Recipe:
    """Own classes and photographs on two cores, from random weights or from any network.safetensors.

    Mean, crop and numbers of steps are derived from the data, widths from --network.weights. Without that option the
    network has an eighth of VGG-16's width. The context module starts as the identity and learns with the front end.
    """
    crops: dict[str, Any] = {"batch": 2, "crop": DERIVE, "iterations": DERIVE, "dropout": 0.1}
    return Recipe(
        name="custom",
        label_space=OWN,
        mean_bgr=(DERIVE, DERIVE, DERIVE),
        network=NetworkConfig(scale=DERIVE),
        front_end=_adamw(learning_rate=1e-3, **crops),
        joint=_adamw(learning_rate=5e-4, **crops),
        random_scale=(0.75, 1.5),
        class_balance=0.5,
        checkpoint_every=150,
        validate_every=450,
        validation_images=12,
    )


def custom_vgg16() -> Recipe:
    """Own classes and photographs on GPUs: full width, from VGG-16's convolutions.

    Crop and numbers of steps are derived from the data; the mean is that of VGG-16's weights. Learning rates and
    dropout equal those of `camvid_vgg16`.
    """
    crops: dict[str, Any] = {"batch": 8, "crop": DERIVE, "iterations": DERIVE, "dropout": 0.5}
    return Recipe(
        name="custom_vgg16",
        label_space=OWN,
        mean_bgr=_VGG_MEAN,
        network=NetworkConfig(weights="torchvision"),
        front_end=_adamw(learning_rate=1e-4, **crops),
        joint=_adamw(learning_rate=3e-5, **crops),
        random_scale=(0.75, 1.5),
        class_balance=0.5,
        checkpoint_every=500,
        validate_every=500,
    )


def street_scenes() -> Recipe:
    """The demo's drawn scenes, from random weights, in minutes: an eighth of VGG-16's width."""
    # A crop of 612 pixels holds the height of a scene, so most of the computation is not spent on the margin.
    crops: dict[str, Any] = {"batch": 2, "crop": 612}
    return Recipe(
        name="street_scenes",
        label_space="street_scenes",
        mean_bgr=(116.0, 112.0, 108.0),
        network=NetworkConfig(scale=0.125, fc=96),
        front_end=_adamw(iterations=900, learning_rate=1e-3, dropout=0.1, **crops),
        context=_adamw(iterations=100, learning_rate=1e-3, **crops),
        joint=_adamw(iterations=160, learning_rate=5e-4, dropout=0.1, **crops),
        class_balance=0.5,
        checkpoint_every=150,
        validate_every=450,
        validation_images=12,
    )


def camvid_frozen_vgg16() -> Recipe:
    """CamVid on two cores: VGG-16's convolutions keep their ImageNet weights, a narrow head and the context learn.

    fc6 keeps its 7x7 window and dilation 4, so the geometry equals that of Dilation8. Dropout in the context stage
    blurs the score maps of frames that the front end has memorized. Score maps are therefore computed from cached
    conv5_3 maps at every step.
    """
    crops: dict[str, Any] = {"batch": 2, "crop": 852, "dropout": 0.5}
    return Recipe(
        name="camvid_frozen_vgg16",
        label_space="camvid_segnet",
        mean_bgr=_VGG_MEAN,
        network=NetworkConfig(fc=256, weights="torchvision", reference_window=(900, 1100)),
        front_end=_adamw(iterations=1840, learning_rate=1e-3, **crops),
        context=_adamw(iterations=360, learning_rate=5e-4, **crops),
        joint=_adamw(iterations=360, learning_rate=2e-4, **crops),
        frozen_convolutions=True,
        class_balance=0.5,
        checkpoint_every=200,
        validate_every=460,
        validation_images=34,
    )


def camvid_vgg16() -> Recipe:
    """CamVid as published with SegNet (480x360): full-width Dilation8 in seven minutes on one H200.

    All weights learn, and fc6 and fc7 start from random weights, so the rate is higher than the paper's and falls to
    zero. A crop of 852 pixels holds the width of a frame. Random scale keeps the network from memorizing 367 frames.
    """
    crops: dict[str, Any] = {"batch": 8, "crop": 852, "dropout": 0.5}
    return Recipe(
        name="camvid_vgg16",
        label_space="camvid_segnet",
        mean_bgr=_VGG_MEAN,
        network=NetworkConfig(weights="torchvision", reference_window=(900, 1100)),
        front_end=_adamw(iterations=2400, learning_rate=1e-4, **crops),
        joint=_adamw(iterations=1200, learning_rate=3e-5, **crops),
        random_scale=(0.75, 1.5),
        class_balance=0.5,
        checkpoint_every=1000,
        validate_every=800,
    )


def _adamw(**settings: Any) -> StageConfig:
    """Return a stage that AdamW trains with the one-cycle schedule and weight decay 1e-2."""
    return StageConfig(optimizer="adamw", schedule="one_cycle", weight_decay=1e-2, **settings)


SMALL_RECIPES: tuple[Callable[[], Recipe], ...] = (
    custom,
    custom_vgg16,
    street_scenes,
    camvid_frozen_vgg16,
    camvid_vgg16,
)
