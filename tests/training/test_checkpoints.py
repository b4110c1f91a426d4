"""Tests of training state: it is restored after saving, and damaged or foreign state is skipped."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from model.networks.families import build_network
from model.networks.network import Network
from pipeline.data.storage import join
from pipeline.training.engine.stages import build_optimizer, trainable
from pipeline.training.recipes.schema import Recipe
from pipeline.training.runs.checkpoints import Position, newest, newest_place, restore_optimizer, save_state
from tests.shared import STORAGE
from tests.training.support import small_recipe

Setup = tuple[Network, torch.optim.Optimizer, list[tuple[str, nn.Parameter]]]


def setup(recipe: Recipe, steps: int = 2) -> Setup:
    """Return a network that its optimizer has changed a few times."""
    torch.manual_seed(3)
    network = build_network(recipe.spec(), recipe.network.widths())
    named = trainable(network, "joint", recipe)
    optimizer = build_optimizer(recipe.joint, named, network.parts)
    for _ in range(steps):
        for _, parameter in named:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return network, optimizer, named


def save(output: str, recipe: Recipe, made: Setup, iteration: int) -> None:
    position = Position("joint", iteration, {"context": {"mean_iou": 0.5}}, 0.5)
    save_state(STORAGE, output, recipe.digest(), position, *made)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_is_saved_comes_back_to_the_bit(tmp_path: object, optimizer: str) -> None:
    base = small_recipe()
    recipe = small_recipe(joint=base.joint.model_copy(update={"optimizer": optimizer}))
    made = setup(recipe)
    output = str(tmp_path)
    save(output, recipe, made, 20)
    state = newest(STORAGE, output, recipe.digest())
    assert state is not None
    assert state.position == Position("joint", 20, {"context": {"mean_iou": 0.5}}, 0.5)
    for name, tensor in made[0].front_end.state_dict().items():
        assert torch.equal(state.tensors[f"network.{name}"], tensor)
    _, fresh, named = setup(recipe, steps=0)
    restore_optimizer(fresh, named, state.tensors)
    before = made[1].state_dict()["state"]
    after = fresh.state_dict()["state"]
    assert before.keys() == after.keys() and before
    for index, slots in before.items():
        assert all(torch.equal(torch.as_tensor(value), after[index][slot]) for slot, value in slots.items())


def test_the_newest_two_stay(tmp_path: object) -> None:
    recipe = small_recipe()
    output = str(tmp_path)
    for iteration in (2, 4, 10, 100):
        save(output, recipe, setup(recipe), iteration)
    names = [info.uri.rsplit("/", 1)[1] for info in STORAGE.list(output)]
    assert names == ["03-joint-0000010.safetensors", "03-joint-0000100.safetensors"]


def test_ten_million_iterations_are_newer_than_fewer(tmp_path: object) -> None:
    """Limit: names pad the iteration to seven digits, so their order as text changes here."""
    recipe = small_recipe()
    output = str(tmp_path)
    made = setup(recipe)
    for iteration in (9_999_998, 9_999_999, 10_000_000):
        save(output, recipe, made, iteration)
    state = newest(STORAGE, output, recipe.digest())
    assert state is not None and state.position.iteration == 10_000_000
    assert newest_place(STORAGE, output) == (3, 10_000_000)
    names = {info.uri.rsplit("/", 1)[1] for info in STORAGE.list(output)}
    assert names == {"03-joint-9999999.safetensors", "03-joint-10000000.safetensors"}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_is_passed_over(tmp_path: object, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    recipe = small_recipe()
    output = str(tmp_path)
    for iteration in (2, 4):
        save(output, recipe, setup(recipe), iteration)
    uri = join(output, "checkpoints", "03-joint-0000004.safetensors")
    data = STORAGE.read(uri)
    STORAGE.write(uri, {"cut": data[:-9], "flip": b"\xff" * 40 + data[40:], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        state = newest(STORAGE, output, recipe.digest())
    assert state is not None and state.position.iteration == 2
    assert "0000004.safetensors is passed over" in caplog.text


def test_what_was_passed_over_does_not_push_out_what_is_good(tmp_path: object) -> None:
    """A damaged checkpoint sorts as the newest, but the one written after resuming from an older one must stay."""
    recipe = small_recipe()
    output = str(tmp_path)
    STORAGE.write(join(output, "checkpoints", "03-joint-0000009.safetensors"), b"damaged")
    save_state(STORAGE, output, recipe.digest(), Position("joint", 7), *setup(recipe), keep=1)
    state = newest(STORAGE, output, recipe.digest())
    assert state is not None and state.position.iteration == 7
    assert len(STORAGE.list(output)) == 1


def test_another_recipes_state_is_never_taken(tmp_path: object) -> None:
    recipe = small_recipe()
    output = str(tmp_path)
    save(output, recipe, setup(recipe), 2)
    assert newest(STORAGE, output, small_recipe(seed=1).digest()) is None


def test_nothing_there_is_no_state(tmp_path: object) -> None:
    assert newest(STORAGE, str(tmp_path), "any") is None
