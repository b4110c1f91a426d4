"""Tests of training a network of another family than the paper's, by configuration alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.files.checkpoint import from_bytes
from model.networks.families import FAMILIES, build_network
from model.networks.network import Network
from model.prediction.upsampling import Upsampling, cells_needed, labels_from_scores, upsample_scores
from pipeline.errors import ConfigError
from pipeline.training.config import TrainConfig
from pipeline.training.engine.stages import build_optimizer, set_rate, trainable
from pipeline.training.engine.trainer import Hooks
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig
from pipeline.training.samples.crops import SampleParams, SampleRule, image_sample, map_sample
from pipeline.training.samples.samplers import sample_rule
from tests.model.padded_family import PADDED, PaddedFrontEnd, padded_spec
from tests.shared import STORAGE
from tests.training.support import assert_same_training, run_here, scene, small_recipe, write_data

STAGE: dict[str, Any] = {"batch": 3, "crop": 33, "optimizer": "adamw", "learning_rate": 2e-3, "schedule": "constant"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, PADDED, PaddedFrontEnd)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(str(tmp_path_factory.mktemp("data")))


def padded_recipe(network: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """Return `small_recipe` for the padded family: the same stages, on crops that are no multiple of its stride."""
    settings = {"scale": 1 / 8, "fc": 8, "family": PADDED, "family_options": {"dilation": 3}, **(network or {})}
    return small_recipe(
        **{
            "network": NetworkConfig(**settings),
            "front_end": StageConfig(iterations=4, dropout=0.2, **STAGE),
            "context": StageConfig(iterations=3, **STAGE),
            "joint": StageConfig(iterations=3, **STAGE),
            **changes,
        }
    )


def run(recipe: Recipe, data: str, output: str) -> Network:
    run_here(TrainConfig(data=data, output=output, recipe=recipe))
    return from_bytes(STORAGE.read(f"{output}/network.safetensors"))


class Killed(Exception):
    """End of the process."""


def test_context_goes_on_top_of_any_family_and_a_killed_run_resumes(data: str, tmp_path: Path) -> None:
    network = run(padded_recipe(), data, str(tmp_path / "whole"))
    assert network.spec.family == PADDED and network.context is not None
    # The context module learned: it is no longer the identity with which it starts.
    fresh = build_network(padded_recipe().spec()).context
    assert fresh is not None
    assert not torch.equal(network.context.ctx_final.weight, fresh.ctx_final.weight)

    def die(line: str) -> None:
        if line.startswith("joint 3/3"):
            raise Killed

    config = TrainConfig(data=data, output=str(tmp_path / "killed"), recipe=padded_recipe())
    with pytest.raises(Killed):
        run_here(config, Hooks(die))
    run_here(config)
    assert_same_training(str(tmp_path / "killed"), str(tmp_path / "whole"))


def test_frozen_features_are_cached_and_stay(data: str, tmp_path: Path) -> None:
    first = run(padded_recipe(), data, str(tmp_path / "first"))
    weights = str(tmp_path / "first/network.safetensors")
    recipe = padded_recipe({"weights": weights}, frozen_convolutions=True)
    second = run(recipe, data, str(tmp_path / "second"))
    assert list((tmp_path / "second/features").rglob("*.safetensors"))
    for part, stays in (("features", True), ("head", False), ("scores", False)):
        for layer in first.front_end.parts[part]:
            name = f"{layer}.weight"
            assert torch.equal(second.front_end.get_parameter(name), first.front_end.get_parameter(name)) == stays


def test_a_network_of_another_family_is_no_start(data: str, tmp_path: Path) -> None:
    run(padded_recipe(context=StageConfig(), joint=StageConfig()), data, str(tmp_path / "first"))
    weights = str(tmp_path / "first/network.safetensors")
    with pytest.raises(ConfigError, match=r"its family is padded with options .* set --network.family"):
        run(small_recipe(network=NetworkConfig(scale=1 / 32, fc=8, weights=weights)), data, str(tmp_path / "second"))


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="family fcn9s is unknown: choose from dilated, padded"):
        NetworkConfig(family="fcn9s")


def test_rate_factors_and_freezing_by_part() -> None:
    recipe = padded_recipe(joint=StageConfig(iterations=3, rate_factors={"features": 0, "scores": 10}, **STAGE))
    network = build_network(recipe.spec(), recipe.network.widths())
    named = trainable(network, "joint", recipe)
    layers = {name.split(".")[0] for name, _ in named}
    assert layers == {"hidden", "classes", *network.parts["context"]}
    optimizer = build_optimizer(recipe.joint, named, network.parts)
    set_rate(optimizer, 0.5)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in named}
    assert (found["hidden.weight"], found["hidden.bias"]) == (0.5, 1.0)
    assert (found["classes.weight"], found["classes.bias"]) == (5.0, 10.0)


@pytest.mark.parametrize(
    ("stage", "factors", "reason"),
    [
        (
            "joint",
            {"classifier": 2},
            "joint: rate_factors name 'classifier'.* choose from features, head, scores, context",
        ),
        ("front_end", {"context": 2}, "front_end: rate_factors name 'context'"),
        ("context", {"context": 0}, "context: rate_factors freeze every part"),
        ("joint", {"features": 0, "head": 0, "scores": 0, "context": 0}, "joint: rate_factors freeze every part"),
        ("joint", {"head": float("inf")}, "finite"),
        ("joint", {"head": -1}, "greater than or equal to 0"),
    ],
)
def test_rate_factors_that_mean_nothing_are_refused_at_once(stage: str, factors: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        small_recipe(**{stage: StageConfig(rate_factors=factors)})


def test_unused_fields_leave_recipes_as_they_were() -> None:
    written = small_recipe().model_dump_json()
    assert "rate_factors" not in written and "family" not in written
    assert (
        '"rate_factors":{"scores":10.0}'
        in small_recipe(joint=StageConfig(rate_factors={"scores": 10})).model_dump_json()
    )


def test_crops_of_a_padded_network_have_no_margin_and_any_size() -> None:
    image, label = scene(0)
    rule = SampleRule(33, (0.0, 0.0, 0.0), target_stride=4, footprint=PaddedFrontEnd.footprint_of({"dilation": 3}))
    sample = image_sample(image, label, SampleParams(0, 0.5, 0.25, False), rule)
    top, left = int(0.5 * (40 - 33 + 1)), int(0.25 * (56 - 33 + 1))
    expected = image[top : top + 33, left : left + 33, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(sample.inputs.numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(sample.target.numpy(), label[top : top + 33 : 4, left : left + 33 : 4])
    whole = image_sample(
        image, label, SampleParams(0, 0.5, 0.25, False), SampleRule(None, (0.0,) * 3, footprint=rule.footprint)
    )
    assert whole.inputs.shape[1:] == image.shape[:2]


@pytest.mark.parametrize(
    "upsampling",
    [
        Upsampling(8, 3.5, "scores", "zeros"),
        Upsampling(4, 0.0, "scores", "clamp"),
        Upsampling(4, 1.5, "scores", "zeros"),
        Upsampling(8, -20.0, "scores", "zeros"),
    ],
)
def test_training_upsamples_as_prediction_does(upsampling: Upsampling) -> None:
    scores = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    height, width = 33, 38
    upsampled = upsample_scores(scores, height, width, upsampling)
    assert upsampled.shape == (2, 3, height, width)
    for each, own in zip(upsampled, scores, strict=True):
        found = labels_from_scores(own, height, width, upsampling, confidence=True)
        np.testing.assert_array_equal(found.labels, each.argmax(dim=0).numpy())
        np.testing.assert_allclose(found.confidence, 255 * each.softmax(dim=0).amax(dim=0).numpy(), atol=0.51)


def test_a_map_that_begins_before_the_image_is_upsampled_as_in_prediction() -> None:
    """Such a map has more cells than strides, and a sample needs them all: FCN-8s begins 23.5 pixels early."""
    upsampling = Upsampling(8, -23.5, "scores", "zeros")
    recipe = small_recipe()
    rule = sample_rule(recipe, "context", replace(recipe.spec(), upsampling=upsampling))
    maps = torch.randn(3, *cells_needed(64, 80, upsampling), generator=torch.Generator().manual_seed(0))
    label = np.zeros((64, 80), np.uint8)
    sample = map_sample(maps, label, SampleParams(0, 0.0, 0.0, False), replace(rule, crop=None), 0)
    found = upsample_scores(sample.inputs[None], 64, 80, upsampling)[0]
    expected = labels_from_scores(maps, 64, 80, upsampling)
    np.testing.assert_array_equal(found.argmax(dim=0).numpy(), expected.labels)


def test_padded_spec_matches_the_recipes() -> None:
    spec = padded_recipe().spec()
    assert (spec.family, spec.family_options) == (padded_spec().family, padded_spec().family_options)
