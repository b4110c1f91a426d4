"""Tests of a whole run in this process: files, scores, and the same network after any interruption."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics.classification import MulticlassJaccardIndex

from model.files.checkpoint import from_bytes
from model.networks.families import build_network
from model.networks.front_end import CONV_NAMES
from model.prediction.dense_prediction import predict
from pipeline.data.label_spaces import label_space
from pipeline.errors import ConfigError, RunConflict, WorkerPreempted
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import Hooks
from pipeline.training.engine.validation import validate
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import map_caches
from pipeline.training.recipes.schema import NetworkConfig, Recipe
from pipeline.training.samples.dataset import LabelledImages
from pipeline.training.samples.samplers import sampler
from pipeline.training.samples.sources import Sources
from tests.segmentation.support import png
from tests.shared import STORAGE, sampled
from tests.training.support import losses, run_here, scene, small_recipe, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(str(tmp_path_factory.mktemp("data")))


class Killed(Exception):
    """End of the process."""


def run(recipe: Recipe, data: str, output: str, stop_at: str = "") -> list[str]:
    """Train, and die before the line of progress that starts with `stop_at`."""
    lines: list[str] = []

    def say(line: str) -> None:
        if stop_at and line.startswith(stop_at):
            raise Killed
        lines.append(line)

    config = TrainConfig(data=data, output=output, recipe=recipe)
    if not stop_at:
        run_here(config, Hooks(say))
        return lines
    with pytest.raises(Killed):
        run_here(config, Hooks(say))
    return lines


@pytest.fixture(scope="module")
def finished(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("finished"))
    run(small_recipe(), data, output)
    return output


def test_it_leaves_networks_metrics_and_event_files(finished: str) -> None:
    names = {str(path.relative_to(finished)) for path in Path(finished).rglob("*") if path.is_file()}
    stages = {f"stages/{stage}.safetensors" for stage in ("front_end", "context", "joint")}
    assert stages | {"network.safetensors", "metrics.json"} <= names
    metrics = json.loads(Path(finished, "metrics.json").read_text())
    assert set(metrics) == {"front_end", "context", "joint"} and metrics["joint"]["images"] == 3
    network = from_bytes(Path(finished, "network.safetensors").read_bytes())
    assert network.spec.provenance["metrics"] == metrics
    assert network.spec.provenance["recipe"]["name"] == "small"
    assert from_bytes(Path(finished, "stages/front_end.safetensors").read_bytes()).context is None


def test_tensorboard_reads_losses_rates_and_scores(finished: str) -> None:
    events = EventAccumulator(str(Path(finished, "tensorboard")))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(10))
    assert events.Scalars("train/learning_rate")[0].value == pytest.approx(2e-3)
    assert len(events.Scalars("val/mean_iou")) == 3
    assert "val/iou/road" in events.Tags()["scalars"]
    assert [event.step for event in events.Images("val/examples")] == [3, 6, 9]
    picture = np.asarray(Image.open(io.BytesIO(events.Images("val/examples")[0].encoded_image_string)))
    assert picture.ndim == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_the_best_network_is_that_of_the_best_validation(finished: str) -> None:
    metrics = json.loads(Path(finished, "metrics.json").read_text())
    best = from_bytes(Path(finished, "best.safetensors").read_bytes()).spec.provenance["metrics"]
    last = list(best)[-1]
    assert best[last] == metrics[last]
    assert metrics[last]["mean_iou"] == max(stage["mean_iou"] for stage in metrics.values())


def test_as_many_checkpoints_stay_as_asked_for(data: str, tmp_path: Path) -> None:
    run(small_recipe(keep_checkpoints=3, checkpoint_every=1), data, str(tmp_path))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


STOPS = ["stage context:", "front_end 4/4", "stage joint, it", "context 3/3", "joint 3/3"]


@pytest.mark.parametrize("stop_at", sampled(STOPS, 2))
def test_a_run_that_died_anywhere_ends_with_the_same_network(
    finished: str, data: str, tmp_path: Path, stop_at: str
) -> None:
    run(small_recipe(), data, str(tmp_path), stop_at)
    assert not (tmp_path / "network.safetensors").exists()
    lines = run(small_recipe(), data, str(tmp_path))
    assert any(line.startswith("resuming") for line in lines)
    ours, theirs = ((Path(folder) / "network.safetensors").read_bytes() for folder in (tmp_path, finished))
    assert ours == theirs


@pytest.mark.parametrize("steps", sampled([9, 1, 17], 1))
def test_a_run_that_died_at_any_step_ends_with_the_same_network_and_losses(
    finished: str, data: str, tmp_path: Path, steps: int
) -> None:
    """Deaths are numbered by steps and validated images.

    They fall between checkpoints, at a checkpoint, in a validation, and at the first step of a stage.
    """
    calls = itertools.count(1)

    def alive() -> None:
        if next(calls) == steps:
            raise Killed

    config = TrainConfig(data=data, output=str(tmp_path), recipe=small_recipe())
    with pytest.raises(Killed):
        run_here(config, Hooks(heartbeat=alive))
    run_here(config)
    ours, theirs = ((Path(folder) / "network.safetensors").read_bytes() for folder in (tmp_path, finished))
    assert ours == theirs
    assert losses(str(tmp_path)) == losses(finished)


def test_a_machine_that_leaves_is_left_after_a_checkpoint(finished: str, data: str, tmp_path: Path) -> None:
    notices = iter([False, True])
    recipe = small_recipe(checkpoint_every=100, validate_every=2)
    config = TrainConfig(data=data, output=str(tmp_path), recipe=recipe)
    with pytest.raises(WorkerPreempted, match="front_end is saved at iteration 2"):
        run_here(config, Hooks(should_regroup=lambda: next(notices)))
    assert not (tmp_path / "best.safetensors").exists(), "no validation comes before the checkpoint"
    run_here(config)
    ours, theirs = (from_bytes((Path(each) / "network.safetensors").read_bytes()) for each in (tmp_path, finished))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_a_run_that_was_taken_over_writes_nothing_more(data: str, tmp_path: Path) -> None:
    def taken_over() -> None:
        raise RunConflict("driver 2 has taken it over")

    config = TrainConfig(data=data, output=str(tmp_path), recipe=small_recipe())
    with pytest.raises(RunConflict):
        run_here(config, Hooks(check_lease=taken_over))
    assert not (tmp_path / "checkpoints").exists()


def test_extra_data_are_for_the_stages_that_mix_them_in(data: str, tmp_path: Path) -> None:
    extra = write_data(str(tmp_path / "extra"), train=5, val=1)
    stage = small_recipe().front_end.model_copy(update={"iterations": 8})
    mixing = small_recipe(front_end=stage.model_copy(update={"extra_data": True}), fine_tune=stage)
    sources = Sources(TrainConfig(data=data, output="o", recipe=mixing, extra_data=extra), STORAGE)
    spec = mixing.spec()
    seen = {
        name: {sampler(mixing, name, spec, sources.of(name), None)(step, 0).uri for step in range(8)}
        for name in ("front_end", "fine_tune")
    }
    assert any(uri.startswith(extra) for uri in seen["front_end"])
    assert any(uri.startswith(data) for uri in seen["front_end"])
    assert not any(uri.startswith(extra) for uri in seen["fine_tune"])
    assert len(sources.all) == 11 and len(sources.train) == 6 and len(sources.val) == 3


def test_runs_may_share_their_maps(data: str, tmp_path: Path) -> None:
    recipe = frozen_recipe(tmp_path)
    shared = tmp_path / "maps"
    for output in ("one", "two"):
        config = TrainConfig(data=data, output=str(tmp_path / output), maps=str(shared), recipe=recipe)
        run_here(config)
    # Both runs have the same front end, so the second one found every map.
    assert len(list(shared.rglob("*.safetensors"))) == 2 * (6 + 6 + 3)
    assert not (tmp_path / "two" / "features").exists()


def test_validation_is_torchmetrics_on_predicted_images(finished: str, data: str) -> None:
    network = from_bytes(Path(finished, "network.safetensors").read_bytes())
    images = LabelledImages(STORAGE, data, "val", label_space("street_scenes"))
    ours = validate(network, images, World())
    metric = MulticlassJaccardIndex(11, average="none", ignore_index=255, zero_division=-1)
    for seed in range(500, 503):
        image, ids = scene(seed)
        metric.update(torch.from_numpy(predict(network, image).labels)[None].long(), torch.from_numpy(ids)[None].long())
    assert [-1 if value is None else value for value in ours.iou] == pytest.approx(metric.compute().tolist())
    assert network.training is False


def frozen_recipe(folder: Path, **changes: object) -> Recipe:
    """Return a recipe whose convolutions come from a file and stay unchanged."""
    recipe = small_recipe()
    torch.manual_seed(8)
    front_end = build_network(recipe.spec(), recipe.network.widths()).front_end
    tensors = {}
    index = 0
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for layer in range(count):
            convolution = front_end.get_submodule(f"conv{block + 1}_{layer + 1}")
            tensors[f"features.{index}.weight"] = convolution.weight.data.contiguous()
            tensors[f"features.{index}.bias"] = convolution.bias.data + 0.05
            index += 2
        index += 1
    (folder / "vgg.safetensors").write_bytes(save(tensors))
    network = NetworkConfig(scale=1 / 32, fc=8, weights=str(folder / "vgg.safetensors"))
    return small_recipe(network=network, frozen_convolutions=True, **changes)


def test_frozen_convolutions_stay_and_maps_are_computed_once(data: str, tmp_path: Path) -> None:
    recipe = frozen_recipe(tmp_path)
    run(recipe, data, str(tmp_path / "run"), "joint 3/3")
    files = [path for kind in ("features", "scores") for path in (tmp_path / "run" / kind).rglob("*.safetensors")]
    maps = {path: path.stat().st_mtime_ns for path in files}
    # Maps of both kinds: 6 training images, plain and mirrored, and 3 validation images, plain.
    assert len(maps) == 2 * (6 + 6 + 3)
    run(recipe, data, str(tmp_path / "run"))
    assert all(path.stat().st_mtime_ns == written for path, written in maps.items())
    network = from_bytes((tmp_path / "run/network.safetensors").read_bytes())
    stored = load_file(tmp_path / "vgg.safetensors").items()
    weights = {name.split(".")[1]: tensor for name, tensor in stored if name.endswith("weight")}
    kept = [network.front_end.get_submodule(name).weight for name in CONV_NAMES]
    given = [weights[index] for index in sorted(weights, key=int)]
    assert all(torch.equal(one, other) for one, other in zip(kept, given, strict=True))


def test_validation_from_cached_maps_is_that_of_the_images(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = frozen_recipe(tmp_path, validate_every=2)
    caches = Mock(wraps=map_caches)
    monkeypatch.setattr("pipeline.training.engine.trainer.map_caches", caches)
    run(recipe, data, str(tmp_path / "run"))
    # A cache digests all weights, so the steps and the validations of a stage share one.
    assert caches.call_count == len(recipe.stages)
    network = from_bytes((tmp_path / "run/network.safetensors").read_bytes())
    images = LabelledImages(STORAGE, data, "val", label_space("street_scenes"))
    recorded = json.loads((tmp_path / "run/metrics.json").read_text())["joint"]
    # The cache has half-precision maps, so a few pixels at a boundary may change class.
    assert recorded["pixel_accuracy"] == pytest.approx(validate(network, images, World()).pixel_accuracy, abs=0.01)


def test_an_undecodable_training_image_is_named(tmp_path: Path) -> None:
    data = write_data(str(tmp_path / "data"), train=2, val=1)
    Path(data, "train/images/001.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"001\.png cannot be trained on"):
        run(small_recipe(), data, str(tmp_path / "run"))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_label_of_another_size_is_named(tmp_path: Path, frozen: bool) -> None:
    data = write_data(str(tmp_path / "data"), train=3, val=1)
    Path(data, "train/labels/002.png").write_bytes(png(np.zeros((80, 90), np.uint8)))
    recipe = frozen_recipe(tmp_path) if frozen else small_recipe()
    with pytest.raises(ConfigError, match=r"002\.png has 80×90 pixels .*, its image 40×56"):
        run(recipe, data, str(tmp_path / "run"))


def test_validation_images_of_zero_validate_at_stage_ends_alone(data: str, tmp_path: Path) -> None:
    lines = run(small_recipe(validate_every=1, validation_images=0), data, str(tmp_path))
    assert sum("validation on" in line for line in lines) == 3


def test_limits_spread_validation_over_the_split(data: str) -> None:
    seen: list[int] = []
    images = LabelledImages(STORAGE, data, "train", label_space("street_scenes"))
    original = images.image

    def image(index: int) -> np.ndarray:
        seen.append(index)
        return original(index)

    images.image = image  # type: ignore[method-assign]
    torch.manual_seed(0)
    recipe = small_recipe()
    assert validate(build_network(recipe.spec(), recipe.network.widths()), images, World(), limit=3).images == 3
    assert seen == [0, 2, 5]
