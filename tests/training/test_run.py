"""Tests of a submission without Ray: an impossible run is refused before anything is written or started."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from demo.object_store import ObjectStore
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, IncompleteRun, NoProgress, RunConflict, StorageError, WorkerPreempted
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE
from pipeline.training.recipes.schema import STAGES, NetworkConfig, Recipe, StageConfig
from pipeline.training.runs import run
from pipeline.training.runs.checkpoints import Phase
from pipeline.training.runs.lease import Lease
from pipeline.training.runs.run import train
from pipeline.training.samples.sources import Sources
from tests.shared import STORAGE
from tests.training.support import add_scene, small_recipe, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(str(tmp_path_factory.mktemp("data")), train=2, val=1)


def submit(data: str, output: object, recipe: Recipe | None = None, **options: Any) -> list[TrainConfig]:
    """Return the configurations whose workers were started."""
    started: list[TrainConfig] = []

    class Started(Exception):
        """Signal that the workers were started, which ends the submission."""

    def run_phase(config: TrainConfig, phase: Phase, lease: Lease) -> None:
        started.append(config)
        raise Started

    config = TrainConfig(data=data, output=str(output), recipe=recipe or small_recipe(), **options)
    with contextlib.suppress(Started):
        train(config, lambda config: None, run_phase, STORAGE)
    return started


def test_what_can_work_is_started_and_claims_its_output(data: str, tmp_path: object) -> None:
    assert len(submit(data, tmp_path)) == 1
    assert len(submit(data, tmp_path)) == 1
    assert STORAGE.exists(join(str(tmp_path), "recipe.json"))


def test_a_run_that_has_ended_starts_nothing(data: str, tmp_path: object) -> None:
    submit(data, tmp_path)
    STORAGE.write(join(str(tmp_path), "network.safetensors"), b"network")
    assert submit(data, tmp_path) == []


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"seed": 3}, "seed was 0, now 3"),
        ({"network": NetworkConfig(scale=1 / 32, fc=9)}, r"network\.fc was 8, now 9"),
    ],
)
def test_another_recipe_on_the_same_output_is_refused(
    data: str, tmp_path: object, recipe: dict[str, object], message: str
) -> None:
    submit(data, tmp_path)
    with pytest.raises(RunConflict, match=message):
        submit(data, tmp_path, small_recipe(**recipe))


def test_how_often_to_save_and_validate_may_change(data: str, tmp_path: object) -> None:
    submit(data, tmp_path)
    assert len(submit(data, tmp_path, small_recipe(checkpoint_every=7, validate_every=9))) == 1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"label_space": "cityscapes_label_ids"}, "no pixel of any class of label space cityscapes_label_ids"),
        ({"label_space": "nonsense"}, "nonsense"),
        ({"front_end": StageConfig()}, "trains no front end: give --network.weights"),
        (dict.fromkeys(STAGES, StageConfig()), "every stage has zero iterations"),
        ({"network": NetworkConfig(weights="/absent.safetensors")}, "there is no such object"),
    ],
)
def test_recipes_that_do_not_fit_the_data(data: str, tmp_path: object, recipe: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        submit(data, tmp_path, small_recipe(**recipe))
    assert STORAGE.list(str(tmp_path)) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(tmp_path: object, split: str) -> None:
    data = write_data(join(str(tmp_path), "data"), **{"train": 1, "val": 1, split: 0})
    with pytest.raises(ConfigError, match=f"{split}/images holds no image"):
        submit(data, join(str(tmp_path), "run"))


def test_an_image_without_a_label_is_named(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    data = write_data(join(str(tmp_path), "data"), train=2, val=1)
    STORAGE.delete(join(data, "train/labels/001.png"))
    assert len(submit(data, join(str(tmp_path), "run"))) == 1
    assert re.search(
        r"1 of 2 images below .*train/images have no label and are left out, first .*001\.png", caplog.text
    )
    with pytest.raises(ConfigError, match=r"1 images have no label, first .*001\.png.*--require-labels"):
        submit(data, join(str(tmp_path), "other"), require_labels=True)


def test_an_unreachable_bucket_is_named(s3_env: dict[str, str], tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="no-such-bucket-here"):
        submit("s3://no-such-bucket-here/x", tmp_path)


def test_a_read_only_output_is_refused(
    data: str, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.reader_env.items():
        monkeypatch.setenv(name, value)
    config = TrainConfig(data=data, output=bucket, recipe=small_recipe())
    with pytest.raises(ConfigError, match=r"cannot be written.*access denied"):
        train(config, lambda config: None, lambda config, phase, lease: None, Storage())


def test_crops_must_fit_the_stride() -> None:
    with pytest.raises(ValidationError, match="crop 405"):
        Recipe.model_validate({**small_recipe().model_dump(), "joint": {"crop": 405}})


def test_paths_are_made_absolute_and_one_spelling() -> None:
    config = TrainConfig(data="s3a://bucket/data", output="x/../runs/r1", recipe=small_recipe())
    assert config.data == ("s3://bucket/data",) and Path(config.output) == Path("runs/r1").absolute()


class Phases:
    """Mock workers; each call performs the next of the given acts."""

    def __init__(self, *acts: Callable[[TrainConfig], None]) -> None:
        self.acts = list(acts)
        self.calls = 0

    def __call__(self, config: TrainConfig, phase: Phase, lease: Lease) -> None:
        self.calls += 1
        self.acts.pop(0)(config)


def lose(error: Exception) -> Callable[[TrainConfig], None]:
    def act(config: TrainConfig) -> None:
        raise error

    return act


def lose_after_checkpoint(iteration: int) -> Callable[[TrainConfig], None]:
    def act(config: TrainConfig) -> None:
        STORAGE.write(join(config.output, "checkpoints", f"00-front_end-{iteration:07d}.safetensors"), b"state")
        raise IncompleteRun("a worker was lost")

    return act


def end(config: TrainConfig) -> None:
    STORAGE.write(join(config.output, NETWORK_FILE), b"network")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_PAUSE_SECONDS", 0.0)


def test_storage_that_is_away_is_one_loss_after_another(
    data: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's progress cannot be read either while storage fails, and that must not end the run at once."""

    def away(config: TrainConfig) -> None:
        monkeypatch.setattr(run, "newest_place", lambda storage, output: lose(StorageError("away"))(config))
        raise StorageError("the bucket is away")

    phases = Phases(away, away, end)
    assert persist(data, tmp_path, phases, max_failures=2)


def test_the_second_data_set_is_looked_at_before_the_start(data: str, tmp_path: object) -> None:
    extra = write_data(join(str(tmp_path), "extra"), train=1, val=1)
    STORAGE.write(join(extra, "train/images/000.png"), b"no picture")
    mixing = small_recipe(front_end=StageConfig(iterations=1, extra_data=True))
    config = TrainConfig(data=data, output=str(tmp_path), recipe=mixing, extra_data=extra)
    with pytest.raises(ConfigError, match=r"000\.png cannot be trained on"):
        train(config, lambda config: None, Phases(), STORAGE)


def persist(data: str, output: object, phases: Phases, **changes: object) -> bool:
    config = TrainConfig(data=data, output=str(output), recipe=small_recipe(), **changes)
    return train(config, lambda config: None, phases, STORAGE)


def test_losses_with_a_checkpoint_between_them_may_go_on_for_ever(data: str, tmp_path: object) -> None:
    phases = Phases(*(lose_after_checkpoint(iteration) for iteration in range(9)), end)
    assert persist(data, tmp_path, phases, max_failures=1)
    assert phases.calls == 10


def test_losses_in_one_place_end_the_run(data: str, tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    phases = Phases(*[lose(StorageError("the bucket is away"))] * 4)
    with pytest.raises(StorageError, match="the bucket is away"):
        persist(data, tmp_path, phases, max_failures=2)
    assert phases.calls == 3 and "giving up: no new checkpoint" in caplog.text


def test_machines_that_leave_are_no_failures(data: str, tmp_path: object) -> None:
    phases = Phases(*[lose(WorkerPreempted("a spot machine goes"))] * 5, end)
    assert persist(data, tmp_path, phases, max_failures=0)


@pytest.mark.parametrize("error", [NoProgress("stuck"), ConfigError("wrong"), RunConflict("taken over")])
def test_what_another_try_cannot_mend_is_not_tried_again(data: str, tmp_path: object, error: Exception) -> None:
    phases = Phases(lose(error), end)
    with pytest.raises(type(error), match=str(error)):
        persist(data, tmp_path, phases)
    assert phases.calls == 1


def test_changed_images_are_another_run(tmp_path: object) -> None:
    data = write_data(join(str(tmp_path), "data"), train=2, val=1)
    output = join(str(tmp_path), "run")
    submit(data, output)
    STORAGE.write(join(data, "train/images/001.png"), STORAGE.read(join(data, "train/images/000.png")))
    with pytest.raises(RunConflict, match=r"1 images or labels were replaced or removed.*first .*001\.png"):
        submit(data, output)


def test_new_images_wait_for_the_next_run(tmp_path: object) -> None:
    data = write_data(join(str(tmp_path), "data"), train=2, val=1)
    output = join(str(tmp_path), "run")
    (first,) = submit(data, output)
    add_scene(data, "train", 7)
    add_scene(data, "val", 507)
    (second,) = submit(data, output)
    assert [len(Sources(second, STORAGE).of(stage)) for stage in ("front_end", "joint")] == [2, 2]
    assert first == second and len(Sources(second, STORAGE).val) == 1
    (fresh,) = submit(data, join(str(tmp_path), "other"))
    assert len(Sources(fresh, STORAGE).train) == 3


def test_a_run_that_froze_no_lists_goes_on_with_the_same_data(tmp_path: object) -> None:
    """`recipe.json` of version 0.1.0 has a digest of its data, but no lists."""
    data = write_data(join(str(tmp_path), "data"), train=2, val=1)
    output = join(str(tmp_path), "run")
    submit(data, output)
    claimed = json.loads(STORAGE.read(join(output, "recipe.json")))
    kept = ("data", "extra_data", "images", "recipe", "digest")
    STORAGE.write(join(output, "recipe.json"), json.dumps({key: claimed[key] for key in kept}).encode())
    (config,) = submit(data, output)
    assert config.frozen is None
    add_scene(data, "train", 7)
    with pytest.raises(RunConflict, match=r"images\.train was 2, now 3"):
        submit(data, output)


def test_a_second_data_set_goes_with_recipes_that_mix_one_in() -> None:
    mixing = small_recipe(front_end=StageConfig(iterations=1, extra_data=True))
    with pytest.raises(ValidationError, match="stage front_end of small mixes in a second data set: give --extra-data"):
        TrainConfig(data="d", output="o", recipe=mixing)
    with pytest.raises(ValidationError, match="no stage of small mixes in --extra-data"):
        TrainConfig(data="d", output="o", recipe=small_recipe(), extra_data="e")


def test_more_least_workers_than_workers_are_refused() -> None:
    with pytest.raises(ValidationError, match="at least 3 workers of 2: lower --min-workers"):
        TrainConfig(data="d", output="o", recipe=small_recipe(), workers=2, min_workers=3)
