"""The loop against one step written out, and one process against two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional

from model.network import DilatedNetwork, build_network
from pipeline.errors import PipelineError
from pipeline.training.loop import run_steps
from pipeline.training.recipe_schema import Recipe, StageConfig, StageName
from pipeline.training.samples import Sample, image_sample
from pipeline.training.sampling import draw
from pipeline.training.schedule import build_optimizer
from pipeline.training.stages import set_modes, trainable
from pipeline.training.world import World
from tests.training.support import scene, small_recipe


def network_of(recipe: Recipe) -> DilatedNetwork:
    torch.manual_seed(1)
    return build_network(recipe.spec(), recipe.network.widths())


def sampler(recipe: Recipe, stage: StageName) -> Callable[[int, int], Sample]:
    config = recipe.stage(stage)

    def sample(iteration: int, position: int) -> Sample:
        chosen = draw(recipe.seed, stage, iteration, position, batch=config.batch, images=6)
        image, label = scene(chosen.index)
        if chosen.index == 2:
            label[:] = 255  # an image of void alone counts nowhere, and must not disturb the mean
        return image_sample(
            image, label, chosen, cells=config.cells, mean_bgr=recipe.mean_bgr, ignore_label=255, uri=str(chosen.index)
        )

    return sample


def train(recipe: Recipe, stage: StageName, world: World | None = None, weights: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
    network = network_of(recipe)
    set_modes(network, stage, recipe)
    optimizer = build_optimizer(recipe.stage(stage), trainable(network, stage, recipe))
    results = run_steps(network, stage, recipe, optimizer, sampler(recipe, stage), 0, world or World(), weights)
    return network, [result.loss for result in results]


def state(network: DilatedNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 2.0, 11)])
def test_a_step_is_the_mean_loss_of_the_batch_and_sgd(weights: torch.Tensor | None) -> None:
    stage = StageConfig(iterations=1, batch=3, crop=404, learning_rate=1e-2, momentum=0.0, weight_decay=0.0)
    recipe = small_recipe(front_end=stage)
    trained, (loss,) = train(recipe, "front_end", weights=weights)
    network = network_of(recipe)
    samples = [sampler(recipe, "front_end")(0, position) for position in range(3)]
    target = torch.stack([sample.target for sample in samples]).long()
    network.front_end.dropout = 0.0
    expected = functional.cross_entropy(
        network.front_end(torch.stack([sample.inputs for sample in samples])), target, weights, ignore_index=255
    )
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in network.front_end.named_parameters():
        # The reference solver's biases learn at twice the rate.
        step = 1e-2 * (2 if name.endswith("bias") else 1)
        moved = trained.front_end.get_parameter(name)
        assert torch.allclose(moved, parameter - step * parameter.grad, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(("stage", "front_end", "context"), [("front_end", 1, 0), ("context", 0, 1), ("joint", 1, 1)])
def test_each_stage_moves_its_part_alone(stage: StageName, front_end: int, context: int) -> None:
    recipe = small_recipe()
    before, (network, _) = state(network_of(recipe)), train(recipe, stage)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("front_end") for name in moved) == bool(front_end)
    assert any(name.startswith("context") for name in moved) == bool(context)


def test_the_loss_falls() -> None:
    stage = StageConfig(iterations=40, batch=3, crop=404, optimizer="adamw", learning_rate=5e-3, schedule="one_cycle")
    _, losses = train(small_recipe(front_end=stage), "front_end")
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_micro_batches_change_memory_and_not_results() -> None:
    whole = small_recipe()
    cut = small_recipe(joint=whole.joint.model_copy(update={"micro_batch": 1}))
    (one, losses), (other, of_cut) = train(whole, "joint"), train(cut, "joint")
    assert losses == pytest.approx(of_cut, rel=1e-4)
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor, other.state_dict()[name], rtol=1e-2, atol=1e-4), name


def test_a_loss_that_is_not_finite_names_iteration_and_images() -> None:
    recipe = small_recipe()
    network = network_of(recipe)
    torch.nn.init.constant_(network.front_end.final.bias, float("nan"))
    set_modes(network, "front_end", recipe)
    optimizer = build_optimizer(recipe.front_end, trainable(network, "front_end", recipe))
    with pytest.raises(PipelineError, match=r"stage front_end is nan at iteration 0.*images \d, \d, \d.*--front-end"):
        list(run_steps(network, "front_end", recipe, optimizer, sampler(recipe, "front_end"), 0, World()))


def _worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    world = World(rank, size, patient=World.patient_group())
    assert world.agree([3, 4]) and not world.agree([rank, 4])
    world.wait()
    network, losses = train(_of_two(), "joint", world, torch.linspace(0.5, 2.0, 11))
    torch.save((state(network), losses), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def _of_two() -> Recipe:
    # Three samples for two workers: shares differ, and with SGD so would the weights if means were averaged.
    stage = StageConfig(iterations=4, batch=3, crop=404, learning_rate=2e-4, momentum=0.9)
    return small_recipe(joint=stage)


@pytest.mark.timeout(200)
def test_two_workers_compute_what_one_does(tmp_path: Path) -> None:
    mp.spawn(_worker, args=(2, str(tmp_path)), nprocs=2)
    alone, losses = train(_of_two(), "joint", weights=torch.linspace(0.5, 2.0, 11))
    (first, of_first), (second, of_second) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert of_first == of_second == pytest.approx(losses, rel=1e-5)
    for name, tensor in state(alone).items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], tensor, rtol=1e-3, atol=1e-5), name
