"""Tests of recipes against the paper's figures, and of schedules and optimizer groups against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model.networks.network import ContextSpec
from model.prediction.upsampling import DECONVOLUTION, GRID
from model.prediction.views import WorkingSize
from pipeline.data.label_spaces import LabelEncoding, LabelSpace
from pipeline.errors import ConfigError
from pipeline.training.engine.stages import build_optimizer, rate, set_rate
from pipeline.training.recipes.paper import PAPER_RECIPES
from pipeline.training.recipes.registry import RECIPES, recipe
from pipeline.training.recipes.schema import OwnClasses, Recipe, StageConfig
from pipeline.training.samples.samplers import weights_from_counts

# Iterations, batch, crop, rate and momentum of each stage, from the sources that PAPER.md lists: Sec. 4, Sec. 5,
# Appendix A. None means whole images. Crops of VOC and batches of its context stage are those of the reference code.
FIGURES: dict[str, dict[str, tuple[int, int, int | None, float, float]]] = {
    "voc_front_end": {"front_end": (60_000, 14, 500, 1e-3, 0.9)},
    "voc_coco_front_end": {
        "front_end": (100_000 + 40_000, 14, 500, 1e-3, 0.9),
        "fine_tune": (50_000, 14, 500, 1e-5, 0.9),
    },
    "voc_context_basic": {"context": (60_000, 60, 900, 1e-3, 0.9)},
    "voc_context_large": {"context": (60_000, 60, 900, 1e-3, 0.9)},
    "camvid_dilation8": {"front_end": (20_000, 8, 628, 1e-4, 0.99), "joint": (20_000, 1, 852, 1e-5, 0.9)},
    "kitti_dilation7": {"front_end": (10_000, 8, 628, 1e-4, 0.99), "joint": (20_000, 1, 900, 1e-5, 0.99)},
    "cityscapes_dilation10": {
        "front_end": (40_000, 8, 628, 1e-4, 0.99),
        "context": (24_000, 100, None, 1e-4, 0.99),
        "joint": (60_000, 1, 1396, 1e-5, 0.99),
    },
}
# Classes, context module (dilations of the 3x3 layers, padding), last step, window of the release, BGR mean.
URBAN8 = ContextSpec((1, 1, 2, 4, 8, 16, 1), "layer")
VOC8 = ContextSpec((1, 1, 2, 4, 8, 16, 1), "input")
VOC_MEAN = (102.93, 111.36, 116.52)
NETWORKS = {
    "voc_front_end": (21, URBAN8, GRID, (900, 900), VOC_MEAN),
    "voc_coco_front_end": (21, URBAN8, GRID, (900, 900), VOC_MEAN),
    "voc_context_basic": (21, VOC8, GRID, (900, 900), VOC_MEAN),
    "voc_context_large": (21, VOC8, GRID, (900, 900), VOC_MEAN),
    "camvid_dilation8": (11, URBAN8, GRID, (900, 1100), (110.70313206, 108.77808759, 105.41212523)),
    "kitti_dilation7": (
        *(11, ContextSpec((1, 1, 2, 4, 8, 1), "layer"), GRID, (852, 1640)),
        (96.19429688, 95.55136972, 91.34692262),
    ),
    "cityscapes_dilation10": (
        *(19, ContextSpec((1, 1, 2, 4, 8, 16, 32, 64, 1), "layer"), DECONVOLUTION, (1396, 1396)),
        (72.39, 82.91, 73.16),
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_recipes_are_the_papers(name: str) -> None:
    chosen = recipe(name)
    stages = {stage: chosen.stage(stage) for stage in chosen.stages}
    found = {
        stage: (each.iterations, each.batch, each.crop, each.learning_rate, each.momentum)
        for stage, each in stages.items()
    }
    assert found == FIGURES[name]
    for stage, each in stages.items():
        assert (each.optimizer, each.schedule, each.weight_decay) == ("sgd", "step", 5e-4)
        # Dropout is that of VGG-16, but 0 where only the context module learns, on the same maps as in prediction.
        assert each.dropout == (0.0 if stage == "context" else 0.5)
    assert chosen.class_balance == 0 and chosen.random_scale is None and chosen.mirror
    spec = chosen.spec()
    network = len(spec.classes), spec.context, spec.upsampling, spec.reference_window, spec.mean_bgr
    assert network == NETWORKS[name]
    assert chosen.network.scale == 1 and chosen.network.context_init == "identity"
    assert chosen.network.context == ("large" if name.endswith("large") else "basic")


def test_coco_is_mixed_in_at_two_rates_and_left_out_of_the_fine_tuning() -> None:
    chosen = recipe("voc_coco_front_end")
    assert (chosen.front_end.extra_data, chosen.fine_tune.extra_data) == (True, False)
    rates = [rate(chosen.front_end, iteration) for iteration in (0, 99_999, 100_000, 139_999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert rate(chosen.fine_tune, 49_999) == 1e-5


def test_every_papers_recipe_is_held_against_its_figures() -> None:
    assert {maker.__name__ for maker in PAPER_RECIPES} == set(FIGURES) == set(NETWORKS)
    assert all(maker.__doc__ and maker().name == maker.__name__ for maker in PAPER_RECIPES)


def test_every_recipe_gives_a_network_specification() -> None:
    for name, each in RECIPES.items():
        assert each.name == name
        assert len(each.digest()) == 64
        if not each.derived:
            assert each.spec().mean_bgr == each.mean_bgr


@pytest.mark.parametrize(
    "change",
    [
        {"front_end": {"crop": 629}},
        {"front_end": {"iterations": -1}},
        {"front_end": {"no_such": 1}},
        {"nonsense": 1},
        {"network": {"layers": 9}},
        {"network": {"layers": 7, "context": "large"}},
        {"random_scale": (1.5, 0.5)},
        {"random_scale": (0.0, 1.0)},
        {"seed": -1},
        {"frozen_convolutions": True},
        {"resize": ()},
        {"resize": (10_001,)},
        {"resize": (4,)},
        {"resize": (64, 64, 3)},
        {"mean_bgr": (-1, -1, -1)},
        {"network": {"scale": -1}},
        {"network": {"scale": 0}},
    ],
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{**RECIPES["street_scenes"].model_dump(), **change})
    with pytest.raises(ConfigError, match="street_scenes"):
        recipe("streets")


# Digests of version 0.1.0: runs that were begun then still belong to these recipes.
DIGESTS = {
    "camvid_dilation8": "fc3b540c4816bd20d5a30adef20b58c5ac20b0cfedf129144578661bf5af7f2d",
    "camvid_frozen_vgg16": "649697956ad178edf598e85c338e8a3c4ae7a42cc86e05d6ee0bfe186a6b92d4",
    "camvid_vgg16": "2f7a9b896660d27430ddbf989fcd3a8df66bcead58e2a0707497d9595c00a436",
    "cityscapes_dilation10": "48d298f8b2faf70b0c952dcea986b48684f2624aba7efe0de0efeab551ac8e0c",
    "kitti_dilation7": "96462e8ca0c06c560d72c1e9cb1c75a657711ea2a0f088578b7211c549f2ba46",
    "street_scenes": "513c9043348dc8ed50eb315d0f59c65dbebf6af77495e39953f6620f209da801",
    "voc_coco_front_end": "255d475ed9914e02217b58fc8373c6dff8f27406b9bf25e9b027e8c9cee088a3",
    "voc_context_basic": "40e9db9e73a9cf6bdb9bacc5526e8e856b2002426f56c4c7bba947b99e1ee579",
    "voc_context_large": "5a5c0e04ff8b51c985e648307397d416c4305bf23535a772c9f0fb43de6f5d8a",
    "voc_front_end": "e0fcd7a43b0f1d6d7e773fb972a9352d4fa96df0221ff3914a7cec02abb8eb37",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_recipes_keep_their_digests(name: str) -> None:
    chosen = recipe(name)
    assert chosen.digest() == DIGESTS[name]
    written = chosen.model_dump(mode="json")
    assert not {"classes", "resize"} & written.keys() and "layer_widths" not in written["network"]
    assert Recipe(**written) == chosen


def test_new_settings_belong_to_the_digest_where_they_are_used() -> None:
    base = recipe("street_scenes")
    changes = ({"resize": (480,)}, {"resize": (480, 640)}, {"classes": OwnClasses.of(two_classes())})
    digests = {base.model_copy(update=change).digest() for change in changes}
    assert len(digests | {base.digest()}) == 4


def two_classes() -> LabelSpace:
    encoding = LabelEncoding(((0,), (255,)), (), (((1, 1, 1),), ((2, 2, 2),)))
    return LabelSpace("own", ("no", "yes"), ((1, 1, 1), (2, 2, 2)), encoding=encoding)


def test_a_recipe_with_own_classes_describes_its_label_files() -> None:
    spec = recipe("street_scenes").model_copy(update={"classes": OwnClasses.of(two_classes()), "resize": (64,)}).spec()
    assert spec.classes == ("no", "yes") and spec.label_values == ((0,), (255,)) and spec.label_ignore == ()
    assert spec.label_colors == (((1, 1, 1),), ((2, 2, 2),)) and spec.label_ignore_colors is None
    assert spec.resize == WorkingSize(long_side=64) and spec.ignore_label == 255


def test_digest_ignores_what_changes_no_result() -> None:
    base = recipe("street_scenes")
    assert base.model_copy(update={"checkpoint_every": 7}).digest() == base.digest()
    assert base.model_copy(update={"seed": 7}).digest() != base.digest()


def test_step_schedule_of_the_reference_solver() -> None:
    config = StageConfig(iterations=400_000, learning_rate=1e-3)
    assert [rate(config, i) for i in (0, 99_999, 100_000, 250_000)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = StageConfig(iterations=1000, learning_rate=2e-3, schedule="one_cycle")
    rates = [rate(config, i) for i in range(1000)]
    assert max(rates) == pytest.approx(2e-3)
    assert int(np.argmax(rates)) == 150
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[150:]))
    assert rates[-1] < 1e-7 < rates[0]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_biases_learn_twice_as_fast_and_do_not_decay(kind: str) -> None:
    layer = torch.nn.Conv2d(1, 1, 1)
    config = StageConfig(optimizer=kind, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = build_optimizer(config, layer.named_parameters(), {})
    set_rate(optimizer, 0.5)
    weights, biases = optimizer.param_groups
    assert (weights["lr"], biases["lr"]) == (0.5, 1.0)
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)
    assert weights["params"][0] is layer.weight


def test_sgd_step_by_hand() -> None:
    layer = torch.nn.Linear(1, 1).double()
    weight = layer.weight.item()
    bias = layer.bias.item()
    config = StageConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = build_optimizer(config, layer.named_parameters(), {})
    velocity_w = velocity_b = 0.0
    for _ in range(3):
        set_rate(optimizer, 0.1)
        optimizer.zero_grad()
        (layer.weight.sum() * 2 + layer.bias.sum() * 3).backward()
        optimizer.step()
        velocity_w = 0.9 * velocity_w + 2 + 0.01 * weight
        velocity_b = 0.9 * velocity_b + 3
        weight = weight - 0.1 * velocity_w
        bias = bias - 0.2 * velocity_b
    assert layer.weight.item() == pytest.approx(weight)
    assert layer.bias.item() == pytest.approx(bias)


def test_class_weights_by_hand() -> None:
    counts = np.array([100, 400, 0, 1600])
    weights = weights_from_counts(counts, 0.5).numpy()
    np.testing.assert_allclose(weights / weights[1], [2, 1, 0, 0.5], rtol=1e-6)
    assert (weights * counts).sum() == pytest.approx(counts.sum())
    np.testing.assert_allclose(weights_from_counts(counts, 0.0).numpy()[[0, 1, 3]], 1.0)
