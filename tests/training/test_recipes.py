"""Recipes against the paper's figures, schedules and optimizer groups against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model.network import ContextSpec
from pipeline.errors import ConfigError
from pipeline.training.class_balance import weights_from_counts
from pipeline.training.recipe_schema import Recipe, StageConfig
from pipeline.training.recipes import RECIPES, recipe
from pipeline.training.schedule import build_optimizer, rate, set_rate


def figures(stage: StageConfig) -> tuple[int, int, int, float, float]:
    """What the paper says of a stage."""
    return stage.iterations, stage.batch, stage.crop, stage.learning_rate, stage.momentum


def test_camvid_dilation8_is_appendix_a() -> None:
    chosen = recipe("camvid_dilation8")
    front = chosen.front_end
    assert (front.batch, front.crop, front.learning_rate, front.momentum) == (8, 628, 1e-4, 0.99)
    assert front.iterations == 20_000
    assert chosen.context.iterations == 0
    joint = chosen.joint
    assert (joint.batch, joint.crop, joint.learning_rate, joint.momentum) == (1, 852, 1e-5, 0.9)
    assert all(stage.weight_decay == 5e-4 and stage.optimizer == "sgd" for stage in (front, joint))
    assert chosen.class_balance == 0, "the paper's loss weighs all classes alike"
    assert (chosen.network.context, chosen.network.layers, chosen.network.padding) == ("basic", 8, "layer")
    assert chosen.network.reference_window == (900, 1100)
    np.testing.assert_allclose(chosen.mean_bgr, (110.70313206, 108.77808759, 105.41212523))


def test_kitti_dilation7_is_appendix_a() -> None:
    chosen = recipe("kitti_dilation7")
    front, joint = chosen.front_end, chosen.joint
    assert figures(front) == (
        10_000,
        8,
        628,
        1e-4,
        0.99,
    )
    assert figures(joint) == (
        20_000,
        1,
        900,
        1e-5,
        0.99,
    )
    assert chosen.context.iterations == 0 and chosen.class_balance == 0
    assert chosen.spec().context == ContextSpec((1, 1, 2, 4, 8, 1), "layer")
    assert chosen.spec().reference_window == (852, 1640)


def test_voc_front_end_is_section_4() -> None:
    chosen = recipe("voc_front_end")
    front = chosen.front_end
    assert figures(front) == (
        60_000,
        14,
        500,
        1e-3,
        0.9,
    )
    assert chosen.context.iterations == chosen.joint.iterations == 0 and chosen.class_balance == 0
    assert len(chosen.spec().classes) == 21


@pytest.mark.parametrize("size", ["basic", "large"])
def test_voc_context_is_section_5(size: str) -> None:
    chosen = recipe(f"voc_context_{size}")
    assert chosen.front_end.iterations == chosen.joint.iterations == 0
    context = chosen.context
    assert (context.learning_rate, context.batch, context.cells, context.dropout) == (1e-3, 60, 66, 0.0)
    assert (chosen.network.context, chosen.network.padding, chosen.network.layers) == (size, "input", 8)


def test_every_recipe_gives_a_network_specification() -> None:
    for name, each in RECIPES.items():
        assert each.name == name
        assert each.spec().mean_bgr == each.mean_bgr
        assert len(each.digest()) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"front_end": {"crop": 629}},
        {"front_end": {"iterations": -1}},
        {"front_end": {"no_such": 1}},
        {"nonsense": 1},
        {"network": {"layers": 9}},
        {"network": {"layers": 7, "context": "large"}},
        {"network": {"upsampling": "deconvolution"}},
        {"seed": -1},
        {"frozen_convolutions": True},
    ],
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{**RECIPES["street_scenes"].model_dump(), **change})
    with pytest.raises(ConfigError, match="street_scenes"):
        recipe("streets")


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
    optimizer = build_optimizer(StageConfig(optimizer=kind, weight_decay=0.1), layer.named_parameters())  # type: ignore[arg-type]
    set_rate(optimizer, 0.5)
    weights, biases = optimizer.param_groups
    assert (weights["lr"], biases["lr"]) == (0.5, 1.0)
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)
    assert weights["params"][0] is layer.weight


def test_sgd_step_by_hand() -> None:
    layer = torch.nn.Linear(1, 1).double()
    weight, bias = layer.weight.item(), layer.bias.item()
    config = StageConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = build_optimizer(config, layer.named_parameters())
    velocity_w = velocity_b = 0.0
    for _ in range(3):
        set_rate(optimizer, 0.1)
        optimizer.zero_grad()
        (layer.weight.sum() * 2 + layer.bias.sum() * 3).backward()
        optimizer.step()
        velocity_w = 0.9 * velocity_w + 2 + 0.01 * weight
        velocity_b = 0.9 * velocity_b + 3
        weight, bias = weight - 0.1 * velocity_w, bias - 0.2 * velocity_b
    assert layer.weight.item() == pytest.approx(weight)
    assert layer.bias.item() == pytest.approx(bias)


def test_class_weights_by_hand() -> None:
    counts = np.array([100, 400, 0, 1600])
    weights = weights_from_counts(counts, 0.5).numpy()
    np.testing.assert_allclose(weights / weights[1], [2, 1, 0, 0.5], rtol=1e-6)
    assert (weights * counts).sum() == pytest.approx(counts.sum())
    np.testing.assert_allclose(weights_from_counts(counts, 0.0).numpy()[[0, 1, 3]], 1.0)
