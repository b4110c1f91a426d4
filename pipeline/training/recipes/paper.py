"""Recipes of the paper (Yu & Koltun 2016), with the choices made where the paper gives no value.

Values that the paper gives for no data set follow the reference code (fyu/dilation, train.py and the training nets).
Weight decay is 5e-4 on weights only, and biases learn at twice the rate. Dropout is 0.5 after fc6 and fc7, samples are
mirrored, and the rate drops to a tenth after 100,000 iterations. Neither source gives a random scale, so no recipe uses
one. `micro_batch` changes memory only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig

__all__ = [
    "PAPER_RECIPES",
    "camvid_dilation8",
    "cityscapes_dilation10",
    "kitti_dilation7",
    "voc_coco_front_end",
    "voc_context_basic",
    "voc_context_large",
    "voc_front_end",
]

# BGR means of the reference code's data sets (predict.py, test.py).
_VOC_MEAN = (102.93, 111.36, 116.52)
_CAMVID_MEAN = (110.70313206, 108.77808759, 105.41212523)
_KITTI_MEAN = (96.19429688, 95.55136972, 91.34692262)
_CITYSCAPES_MEAN = (72.39, 82.91, 73.16)


def voc_front_end() -> Recipe:
    """VOC 2012 with the annotations of Hariharan et al. 2011 (Sec. 4): 60K iterations of 14 crops at 1e-3.

    Momentum is 0.9. The crop of 500 pixels comes from the reference code (docs/training.md). The reference code's rate
    of 1e-4 contradicts the paper's 1e-3; this recipe uses the paper's.
    """
    return _voc(name="voc_front_end", front_end=_voc_stage(iterations=60_000))


def voc_coco_front_end() -> Recipe:
    """VOC plus COCO (--extra-data), 100K iterations at 1e-3, 40K at 1e-4; then VOC alone, 50K at 1e-5 (Sec. 5).

    Batches hold 14 crops as in `voc_front_end`; momentum is 0.9. The step schedule yields the two rates of the first
    stage. Images are drawn as if both data sets were one; the paper does not describe the mixture.
    """
    # The step schedule divides the rate by 10 after 100,000 of the 140,000 iterations.
    together = _voc_stage(iterations=140_000, extra_data=True)
    return _voc(name="voc_coco_front_end", front_end=together, fine_tune=_voc_stage(iterations=50_000, rate=1e-5))


def voc_context_basic() -> Recipe:
    """VOC's basic context module on score maps of a trained front end, which does not learn, at 1e-3 (Sec. 5).

    The module pads its input once, by 33 cells of zeros. Batches of 60 maps follow the reference code
    (docs/training.md), where all maps had 66x66 cells; here each map has the size of its image. The paper gives neither
    momentum nor iterations: this recipe uses those of the front end's training.
    """
    return _voc_context("basic")


def voc_context_large() -> Recipe:
    """VOC's large context module; every other setting is that of `voc_context_basic` (Sec. 5, Table 1)."""
    return _voc_context("large")


def camvid_dilation8() -> Recipe:
    """CamVid (Appendix A): front end 20K iterations of eight 628-pixel crops at 1e-4, momentum 0.99; then joint.

    There is no separate context stage. Joint training uses one 852-pixel crop at 1e-5 and momentum 0.9. The paper does
    not give its iterations; this recipe takes 20K, as many as for the front end.
    """
    return Recipe(
        name="camvid_dilation8",
        label_space="camvid_segnet",
        mean_bgr=_CAMVID_MEAN,
        network=NetworkConfig(weights="torchvision", reference_window=(900, 1100)),
        front_end=_urban_front_end(iterations=20_000),
        joint=StageConfig(iterations=20_000, batch=1, crop=852, learning_rate=1e-5, momentum=0.9, dropout=0.5),
    )


def kitti_dilation7() -> Recipe:
    """KITTI (Appendix A): front end 10K iterations, otherwise CamVid's; joint 20K on 900-pixel crops, momentum 0.99.

    The context module lacks layer 6 and has no stage of its own. The joint rate is 1e-5. The paper does not give the
    joint batch; it is 1, as for CamVid.
    """
    return Recipe(
        name="kitti_dilation7",
        label_space="kitti",
        mean_bgr=_KITTI_MEAN,
        network=NetworkConfig(layers=7, weights="torchvision", reference_window=(852, 1640)),
        front_end=_urban_front_end(iterations=10_000),
        joint=StageConfig(iterations=20_000, batch=1, crop=900, learning_rate=1e-5, momentum=0.99, dropout=0.5),
    )


def cityscapes_dilation10() -> Recipe:
    """Cityscapes (Appendix A): front end 40K; context 24K of 100 whole images at 1e-4; joint 60K on halves at 1e-5.

    Momentum is 0.99 in every stage, and the context module has two more layers. A joint batch is one input of 1396
    pixels including the margin; the halves lie at random places instead of left and right. The deconvolution that ends
    the network was part of its training (fyu/dilation, issue 18), so the loss covers every pixel.
    """
    window = (1396, 1396)
    return Recipe(
        name="cityscapes_dilation10",
        label_space="cityscapes_label_ids",
        mean_bgr=_CITYSCAPES_MEAN,
        network=NetworkConfig(
            layers=10, weights="torchvision", upsampling="deconvolution", reference_window=window
        ),
        front_end=_urban_front_end(iterations=40_000),
        context=StageConfig(
            iterations=24_000, batch=100, micro_batch=2, crop=None, learning_rate=1e-4, momentum=0.99
        ),
        joint=StageConfig(iterations=60_000, batch=1, crop=1396, learning_rate=1e-5, momentum=0.99, dropout=0.5),
    )  # fmt: skip


def _urban_front_end(iterations: int) -> StageConfig:
    """Return the front-end stage of the urban data sets (Appendix A): 8 crops of 628 pixels, 1e-4, momentum 0.99."""
    return StageConfig(
        iterations=iterations, batch=8, micro_batch=2, crop=628, learning_rate=1e-4, momentum=0.99, dropout=0.5
    )


def _voc_stage(iterations: int, rate: float = 1e-3, *, extra_data: bool = False) -> StageConfig:
    return StageConfig(
        iterations=iterations,
        batch=14,
        micro_batch=7,
        crop=500,
        extra_data=extra_data,
        learning_rate=rate,
        momentum=0.9,
        dropout=0.5,
    )


def _voc(**stages: Any) -> Recipe:
    network = NetworkConfig(weights="torchvision", reference_window=(900, 900))
    return Recipe(label_space="voc", mean_bgr=_VOC_MEAN, network=network, **stages)


def _voc_context(size: Literal["basic", "large"]) -> Recipe:
    return Recipe(
        name=f"voc_context_{size}",
        label_space="voc",
        mean_bgr=_VOC_MEAN,
        network=NetworkConfig(context=size, padding="input", reference_window=(900, 900)),
        context=StageConfig(iterations=60_000, batch=60, micro_batch=4, crop=900, learning_rate=1e-3, momentum=0.9),
    )


PAPER_RECIPES: tuple[Callable[[], Recipe], ...] = (
    voc_front_end,
    voc_coco_front_end,
    voc_context_basic,
    voc_context_large,
    camvid_dilation8,
    kitti_dilation7,
    cityscapes_dilation10,
)
