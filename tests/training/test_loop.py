"""Tests of the training loop, against one step written out, and of one process against two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional

from model.networks.families import build_network
from model.networks.network import Network
from pipeline.errors import PipelineError
from pipeline.training.engine.stages import build_optimizer, set_modes, stage_forward, trainable
from pipeline.training.engine.step import Step, run_steps
from pipeline.training.engine.world import World
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig, StageName
from pipeline.training.samples.crops import Sample, SampleRule, image_sample, sample_params
from pipeline.training.samples.samplers import sample_rule
from tests.training.support import scene, small_recipe


def network_of(recipe: Recipe) -> Network:
    torch.manual_seed(1)
    return build_network(recipe.spec(), recipe.network.widths())


def sampler(recipe: Recipe, stage: StageName) -> Callable[[int, int], Sample]:
    config = recipe.stage(stage)

    def sample(iteration: int, position: int) -> Sample:
        chosen = sample_params(recipe.seed, stage, iteration, position, batch=config.batch, images=6)
        image, label = scene(chosen.index)
        if chosen.index == 2:
            label[:] = 255  # an image of only void has no weight and must not affect the mean
        return image_sample(image, label, chosen, SampleRule(config.crop, recipe.mean_bgr), str(chosen.index))

    return sample


def train(  # type: ignore[no-untyped-def]
    recipe: Recipe,
    stage: StageName,
    world: World | None = None,
    weights: torch.Tensor | None = None,
    *,
    recompute: bool = False,
    compiled: bool = False,
):
    network = network_of(recipe)
    network.front_end.activation_checkpointing = recompute
    set_modes(network, stage, recipe)
    optimizer = build_optimizer(recipe.stage(stage), trainable(network, stage, recipe), network.parts)
    forward = torch.compile(partial(stage_forward, network, stage, recipe), backend="aot_eager") if compiled else None
    step = Step(network, stage, recipe, optimizer, world or World(), weights, forward=forward)
    results = run_steps(step, sampler(recipe, stage), 0)
    return network, [result.loss for result in results]


def state(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 2.0, 11)])
def test_a_step_is_the_mean_loss_of_the_batch_and_sgd(weights: torch.Tensor | None) -> None:
    stage = StageConfig(iterations=1, batch=3, crop=404, learning_rate=1e-2, momentum=0.0, weight_decay=0.0)
    recipe = small_recipe(front_end=stage)
    trained, (loss,) = train(recipe, "front_end", weights=weights)
    network = network_of(recipe)
    samples = [sampler(recipe, "front_end")(0, position) for position in range(3)]
    target = torch.stack([sample.target for sample in samples]).long()
    network.front_end.dropout.probability = 0.0
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
    # With dropout in the front end the context stage computes its score maps from images, as the others do.
    recipe = small_recipe(context=small_recipe().context.model_copy(update={"dropout": 0.1}))
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
    optimizer = build_optimizer(recipe.front_end, trainable(network, "front_end", recipe), network.parts)
    step = Step(network, "front_end", recipe, optimizer, World())
    with pytest.raises(PipelineError, match=r"front_end is nan at iteration 0 \(rank 0: \d, \d, \d\).*--front-end"):
        list(run_steps(step, sampler(recipe, "front_end"), 0))


WEIGHTS = torch.linspace(0.5, 2.0, 11)


def _worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    world = World(rank, size, patient=World.barrier_group())
    assert world.all_equal([3, 4]) and not world.all_equal([rank, 4])
    assert world.gather([str(rank)] * rank) == [[str(each)] * each for each in range(size)]
    world.barrier()
    network, losses = train(_shared(), "joint", world, WEIGHTS)
    torch.save((state(network), losses), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def _shared() -> Recipe:
    # Three samples, one of them without a valid cell: shares differ, one of four workers has no sample, and dropout is
    # on. With SGD the weights would also differ if means were averaged, or if a sample's dropout depended on its
    # worker.
    stage = StageConfig(iterations=4, batch=3, crop=404, learning_rate=2e-4, momentum=0.9, dropout=0.5, micro_batch=2)
    return small_recipe(joint=stage)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("size", [3])
def test_any_number_of_workers_computes_what_one_does(tmp_path: Path, size: int) -> None:
    mp.spawn(_worker, args=(size, str(tmp_path)), nprocs=size)
    alone, losses = train(_shared(), "joint", weights=WEIGHTS)
    (first, of_first), *others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(size))
    assert of_first == pytest.approx(losses, rel=1e-5)
    assert all(of_other == of_first for _, of_other in others)
    for name, tensor in state(alone).items():
        assert all(torch.equal(first[name], other[name]) for other, _ in others), name
        assert torch.allclose(first[name], tensor, rtol=1e-3, atol=1e-5), name


def test_what_forward_keeps_and_what_backward_computes_again_give_the_same_weights() -> None:
    recipe = small_recipe(joint=small_recipe().joint.model_copy(update={"dropout": 0.5}))
    kept, losses = train(recipe, "joint")
    again, of_again = train(recipe, "joint", recompute=True)
    assert losses == of_again
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in kept.state_dict().items())


def test_a_compiled_step_is_the_same_step() -> None:
    stage = small_recipe().front_end.model_copy(update={"optimizer": "sgd", "learning_rate": 1e-3, "dropout": 0.5})
    recipe = small_recipe(front_end=stage)
    _, losses = train(recipe, "front_end")
    _, of_compiled = train(recipe, "front_end", compiled=True)
    assert losses == pytest.approx(of_compiled, rel=1e-4)


def test_a_deconvolution_is_part_of_the_loss() -> None:
    network = NetworkConfig(scale=1 / 32, fc=8, upsampling="deconvolution")
    stage = StageConfig(iterations=1, batch=1, crop=404, learning_rate=1e-9)
    recipe = small_recipe(network=network, front_end=stage, mirror=False)
    made = network_of(recipe)
    image, label = scene(1)
    rule = sample_rule(recipe, "front_end", made.spec)
    sample = image_sample(image, label, sample_params(0, "front_end", 0, 0, batch=1, images=1), rule)
    set_modes(made, "front_end", recipe)
    optimizer = build_optimizer(stage, trainable(made, "front_end", recipe), made.parts)
    (result,) = run_steps(Step(made, "front_end", recipe, optimizer, World()), lambda *place: sample, 0)
    with torch.no_grad():
        scores = network_of(recipe).front_end.eval()(sample.inputs[None])
        kernel = torch.outer(*[1 - (torch.arange(16) - 7.5).abs() / 8] * 2).expand(11, 1, 16, 16)
        wide = functional.conv_transpose2d(scores, kernel, stride=8, padding=4, groups=11)
        expected = functional.cross_entropy(wide, sample.target[None].long(), ignore_index=255)
    assert sample.target.shape == (32, 32)
    assert result.loss == pytest.approx(float(expected), rel=1e-5)
