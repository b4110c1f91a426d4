"""Tests of initial weights: a trained network is continued as a whole, or without layers that depend on its classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.files.checkpoint import to_bytes
from model.networks.families import build_network
from model.networks.network import ContextSpec, Network
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig
from tests.shared import STORAGE
from tests.training.support import small_recipe


def trained(recipe: Recipe, **changes: object) -> Network:
    """Return a network as a run of `recipe` would leave it, with every weight changed."""
    torch.manual_seed(9)
    network = build_network(replace(recipe.spec(), **changes), recipe.network.widths())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def going_on(folder: object, network: Network, **changes: object) -> tuple[Network, dict[str, object]]:
    uri = join(str(folder), "network.safetensors")
    STORAGE.write(uri, to_bytes(network))
    settings = NetworkConfig(scale=1 / 32, fc=8, weights=uri, **changes)  # type: ignore[arg-type]
    return initial_network(small_recipe(network=settings), STORAGE)


def test_a_network_of_the_same_classes_goes_on_whole(tmp_path: object) -> None:
    before = trained(small_recipe())
    after, provenance = going_on(tmp_path, before)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in after.state_dict().items())
    assert provenance["copied"] == ["front end", "context module"]
    assert len(str(provenance["sha256"])) == 64


def test_other_classes_get_a_score_layer_and_a_context_of_their_own(tmp_path: object) -> None:
    spec = small_recipe().spec()
    before = trained(small_recipe(), classes=spec.classes[:4], palette=spec.palette[:4])
    after, provenance = going_on(tmp_path, before)
    fresh, _ = initial_network(small_recipe(), STORAGE)
    assert torch.equal(after.front_end.fc7.weight, before.front_end.fc7.weight)
    assert torch.equal(after.front_end.final.weight, fresh.front_end.final.weight)
    assert provenance["copied"] == ["front end without its score layer"]


@pytest.mark.parametrize("context", [None, ContextSpec((1, 1, 2, 4, 8, 1))])
def test_a_front_end_or_another_context_leaves_the_identity(tmp_path: object, context: ContextSpec | None) -> None:
    after, provenance = going_on(tmp_path, trained(small_recipe(), context=context))
    fresh, _ = initial_network(small_recipe(), STORAGE)
    assert after.context is not None and fresh.context is not None
    for name, tensor in after.context.state_dict().items():
        assert torch.equal(tensor, fresh.context.state_dict()[name])
    assert provenance["copied"] == ["front end"]


def test_other_widths_and_means_are_refused_with_the_remedy(tmp_path: object) -> None:
    wide = small_recipe(network=NetworkConfig(scale=1 / 32, fc=9))
    with pytest.raises(ConfigError, match=r"set --network\.scale and --network\.fc"):
        going_on(tmp_path, trained(wide))
    with pytest.raises(ConfigError, match=r"set --mean-bgr 1\.5 2\.25 110\.70313206"):
        going_on(tmp_path, trained(small_recipe(), mean_bgr=(1.5, 2.25, 110.70313206)))


def test_a_file_of_neither_kind_is_refused(tmp_path: object) -> None:
    uri = join(str(tmp_path), "weights.safetensors")
    STORAGE.write(uri, b"nothing of the kind")
    with pytest.raises(ConfigError, match=r"cannot be used: .*not a safetensors file"):
        initial_network(small_recipe(network=NetworkConfig(scale=1 / 32, fc=8, weights=uri)), STORAGE)


def test_a_context_stage_alone_needs_a_score_layer_to_learn_on(tmp_path: object) -> None:
    spec = small_recipe().spec()
    uri = join(str(tmp_path), "network.safetensors")
    STORAGE.write(uri, to_bytes(trained(small_recipe(), classes=spec.classes[:4], palette=spec.palette[:4])))
    network = NetworkConfig(scale=1 / 32, fc=8, weights=uri)
    alone = small_recipe(network=network, front_end=StageConfig(), joint=StageConfig())
    with pytest.raises(ConfigError, match="brings no score layer"):
        initial_network(alone, STORAGE)
