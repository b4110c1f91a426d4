"""Recipes by name: the paper's, and those that fit two cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.training.recipe_schema import NetworkConfig, Recipe, StageConfig

__all__ = ["RECIPES", "recipe"]


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

_VOC_FRONT_END = Recipe(
    # Sec. 4, the first training: VOC 2012 with the annotations of Hariharan et al., 60K iterations of 14 crops at 1e-3,
    # momentum 0.9. The crop of 500 pixels is the reference code's (docs/training.md), whose rate of 1e-4 is not.
    name="voc_front_end",
    label_space="voc",
    mean_bgr=(102.93, 111.36, 116.52),
    network=NetworkConfig(weights="torchvision", reference_window=(900, 900)),
    front_end=StageConfig(iterations=60_000, batch=14, crop=500, learning_rate=1e-3, momentum=0.9, dropout=0.5),
)

_KITTI_DILATION7 = Recipe(
    # Appendix A: front end 10K iterations of eight 628-pixel crops at 1e-4, momentum 0.99; no separate context stage;
    # joint 20K iterations on 900-pixel crops at 1e-5, momentum 0.99. The joint batch is not stated: 1, as for CamVid.
    name="kitti_dilation7",
    label_space="kitti",
    mean_bgr=(96.19429688, 95.55136972, 91.34692262),
    network=NetworkConfig(layers=7, weights="torchvision", reference_window=(852, 1640)),
    front_end=StageConfig(iterations=10_000, batch=8, micro_batch=2, learning_rate=1e-4, momentum=0.99, dropout=0.5),
    joint=StageConfig(iterations=20_000, batch=1, crop=900, learning_rate=1e-5, momentum=0.99, dropout=0.5),
)


def _voc_context(size: Literal["basic", "large"]) -> Recipe:
    # Sec. 5: on the maps of a trained front end, which stays as it is, at 1e-3, padded once at the input by 33 cells.
    # Batches of 60 maps of 66x66 cells are the reference code's (docs/training.md). Momentum and iterations are not
    # stated: those of the front end's own training.
    return Recipe(
        name=f"voc_context_{size}",
        label_space="voc",
        mean_bgr=_VOC_FRONT_END.mean_bgr,
        network=NetworkConfig(context=size, padding="input", reference_window=(900, 900)),
        context=StageConfig(iterations=60_000, batch=60, micro_batch=4, crop=900, learning_rate=1e-3, momentum=0.9),
    )


_VOC_CONTEXTS = (_voc_context("basic"), _voc_context("large"))
_ALL = (_STREET_SCENES, _CAMVID_DILATION8, _CAMVID_FROZEN, _VOC_FRONT_END, _KITTI_DILATION7, *_VOC_CONTEXTS)
RECIPES: Mapping[str, Recipe] = {each.name: each for each in _ALL}
