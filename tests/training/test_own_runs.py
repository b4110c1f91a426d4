"""Tests of runs on own data: derived and frozen settings, initial weights, working sizes, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.files.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from model.kernels.preparation import prepare
from model.networks.dilated.front_end import HEAD_CELLS
from model.networks.dilated.geometry import score_map_size
from model.prediction.dense_prediction import predict
from pipeline.data.storage import join
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.statistics.scores import confusion_matrix
from pipeline.training.config import TrainConfig
from pipeline.training.engine.validation import validate
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import map_caches
from pipeline.training.recipes.registry import recipe
from pipeline.training.runs.run import train, train_here
from pipeline.training.samples.sources import Sources
from tests.shared import STORAGE
from tests.training.own_data import (
    SIZE,
    request,
    scene,
    segment_here,
    submit,
    train_fully,
    write_photos,
)


def test_what_is_derived_is_derived_once(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"), count=20)
    output = tmp_path / "run"
    open_recipe = {"front_end": {"iterations": -1}, "joint": {"iterations": -1}}
    first = submit(request(data, output, epochs=5, **open_recipe))
    sources = Sources(first, STORAGE)
    train_images = len(sources.train)
    assert train_images + len(sources.val) == 20 and first.recipe.derived == ()
    assert first.recipe.front_end.iterations == -(-5 * train_images // 2)
    assert first.recipe.joint.iterations == -(-first.recipe.front_end.iterations // 5)
    assert first.recipe.front_end.crop == 128 + 372
    means = [scene(int(Path(pair.image_uri).stem[1:]))[0].mean((0, 1))[::-1] for pair in sources.train.pairs]
    assert first.recipe.mean_bgr == pytest.approx(np.mean(means, axis=0), abs=0.051)
    # Photographs and classes that are added now do not affect this run.
    write_photos(data, count=10, first=20, classes="id,name\n0,a\n128,b\n255,c\n9,d\n")
    second = submit(request(data, output, epochs=5, **open_recipe))
    assert second == first
    claimed = json.loads((output / "recipe.json").read_text())
    assert claimed["digest"] == first.recipe.digest() and claimed["recipe"]["mean_bgr"] == list(first.recipe.mean_bgr)
    with pytest.raises(RunConflict, match=r"epochs was 5\.0, now 6\.0"):
        submit(request(data, output, epochs=6, **open_recipe))
    with pytest.raises(RunConflict, match=r"val_fraction was None, now 0\.2"):
        submit(request(data, output, epochs=5, val_fraction=0.2, **open_recipe))
    with pytest.raises(RunConflict, match=r"seed was 0, now 3"):
        submit(request(data, output, epochs=5, seed=3, **open_recipe))
    other = submit(request(data, tmp_path / "other", **open_recipe))
    assert other.recipe.front_end.iterations == 600 and other.recipe.spec().classes == ("a", "b", "c", "d")


def test_a_run_over_a_growing_bucket_ends_as_if_it_had_not_grown(bucket: str) -> None:
    """Stopped after a checkpoint and submitted again after photographs were added, it gives the same weights."""
    settings: dict[str, Any] = {"front_end": {"iterations": 4}, "joint": {"iterations": 2}}
    data = write_photos(join(bucket, "data"))
    undisturbed = train_fully(request(data, join(bucket, "undisturbed"), **settings))
    started = submit(request(data, join(bucket, "run"), **settings))
    write_photos(data, count=4, first=10)
    again = submit(request(data, join(bucket, "run"), **settings))
    assert again == started
    train_here(again, STORAGE)
    ours, theirs = (from_bytes(STORAGE.read(uri)) for uri in (join(bucket, "run", "network.safetensors"), undisturbed))
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name].numpy(), tensor.numpy(), err_msg=name)


def test_explicit_numbers_win(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_photos(str(tmp_path / "data"))
    fixed = {"front_end": {"iterations": 7, "crop": 404}, "mean_bgr": (1.0, 2.0, 3.0)}
    chosen = submit(request(data, tmp_path / "run", **fixed, joint={"iterations": -1})).recipe
    assert (chosen.front_end.iterations, chosen.front_end.crop, chosen.mean_bgr) == (7, 404, (1.0, 2.0, 3.0))
    assert chosen.joint.iterations == 2 and chosen.joint.crop == 500
    assert submit(request(data, tmp_path / "other", epochs=3, **fixed)).recipe.front_end.iterations == 7
    assert "--epochs 3 has no effect: the front end has 7 iterations" in caplog.text
    skipped = {"front_end": {"iterations": 0}, "network": {"weights": train_fully(request(data, tmp_path / "first"))}}
    skipped |= {"joint": {"iterations": -1}, "mean_bgr": (-1.0,) * 3}
    assert submit(request(data, tmp_path / "joint", **skipped)).recipe.joint.iterations == 120
    assert submit(request(data, tmp_path / "short", epochs=10, **skipped)).recipe.joint.iterations == 9
    published = TrainConfig(data=data, output=str(tmp_path / "x"), recipe=recipe("street_scenes"), epochs=3)
    with pytest.raises(ConfigError, match=r"--epochs 3 has no effect.*900 iterations in recipe street_scenes"):
        submit(published.model_copy(update={"classes": join(data, "classes.csv")}))


def test_any_network_is_a_start_and_gives_its_widths_and_mean(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"))
    first = train_fully(request(data, tmp_path / "run", mean_bgr=(90.0, 100.0, 110.0)))
    adopting = {"network": {"scale": -1, "weights": first}, "mean_bgr": (-1.0, -1.0, -1.0)}
    prepared = submit(request(data, tmp_path / "second", **adopting))
    old = from_bytes(STORAGE.read(first))
    new = prepared.recipe
    assert new.mean_bgr == (90.0, 100.0, 110.0) and new.network.widths() == old.front_end.widths
    train_here(prepared, STORAGE)
    other = write_photos(str(tmp_path / "data2"), classes="id,name\n0,x\n128,y\n255,z\n")
    third = train_fully(request(other, tmp_path / "third", **adopting))
    provenance = from_bytes(STORAGE.read(third)).spec.provenance["weights"]
    assert provenance["copied"] == ["front end without its score layer"]


@pytest.mark.parametrize("resize", [(80,), (24, 30)])
def test_a_working_size_is_kept_by_the_network(tmp_path: Path, resize: tuple[int, ...]) -> None:
    data = write_photos(str(tmp_path / "data"))
    config = submit(request(data, tmp_path / "run", resize=resize))
    sources = Sources(config, STORAGE)
    working = (55, 80) if len(resize) == 1 else resize
    image, label = sources.train.pair(0)
    assert image.shape == (*working, 3) and label.shape == working
    assert sources.val.image(0).shape == (*SIZE, 3)
    train_here(config, STORAGE)
    checkpoint = join(config.output, "network.safetensors")
    network = from_bytes(STORAGE.read(checkpoint))
    key = "long_side" if len(resize) == 1 else "size"
    expected = {key: resize[0] if len(resize) == 1 else list(resize)}
    assert read_metadata(to_bytes(network), METADATA_KEY)["resize"] == expected
    # Validation computes scores at the original size of the images.
    total = np.zeros((3, 3), np.int64)
    for index in range(len(sources.val)):
        image, label = sources.val.pair(index)
        total += confusion_matrix(label, predict(network, image).labels, 3, 255)
    found = validate(network, sources.val, World())
    assert found.pixel_accuracy == pytest.approx(total.trace() / total.sum())
    run = segment_here(images=join(data, "images"), checkpoint=checkpoint, output=str(tmp_path / "out"))
    for uri, mask in run.masks():
        assert mask.shape == SIZE
        picture = np.array(Image.open(uri))
        assert (mask == predict(prepare(network, 0), picture).labels).mean() > 0.999


def test_maps_of_frozen_convolutions_are_made_at_the_working_size(tmp_path: Path) -> None:
    """Context and head learn on cached maps of the resized images, in training and in validation."""
    data = write_photos(str(tmp_path / "data"), count=6)
    first = train_fully(request(data, tmp_path / "run"))
    config = request(data, tmp_path / "frozen", resize=(80,), network={"weights": first}, mean_bgr=(-1.0,) * 3)
    stage = config.recipe.front_end.model_copy(update={"iterations": 2, "crop": 404, "dropout": 0.0})
    changes = {"frozen_convolutions": True, "random_scale": None, "context": stage, "front_end": stage}
    config = submit(config.model_copy(update={"recipe": config.recipe.model_copy(update=changes)}))
    train_here(config, STORAGE)
    metrics = json.loads(STORAGE.read(join(config.output, "metrics.json")))
    network = from_bytes(STORAGE.read(join(config.output, "stages/context.safetensors")))
    sources = Sources(config, STORAGE)
    by_images = validate(network, sources.val, World())
    assert metrics["context"]["pixel_accuracy"] == pytest.approx(by_images.pixel_accuracy, abs=0.01)
    maps = map_caches(config, STORAGE, network)["features"]
    wanted = tuple(cells + HEAD_CELLS for cells in score_map_size(55, 80))
    assert maps.load(sources.val, 0, False).shape[1:] == maps.load(sources.train, 0, True).shape[1:] == wanted
    # Runs at another working size, or without one, may share the folder of maps.
    network.spec = replace(network.spec, resize=None)
    assert maps.missing(sources.val, [False]) == []
    assert map_caches(config, STORAGE, network)["features"].missing(sources.val, [False]) == [(0, False)]


def test_a_run_that_has_ended_needs_its_images_no_more(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"))
    config = request(data, tmp_path / "run")
    train_fully(config)
    STORAGE.delete(join(data, "images/p001.png"))
    assert not train(config, lambda config: None, lambda *arguments: None, STORAGE)
    other = request(data, tmp_path / "other")
    submit(other)
    STORAGE.delete(join(data, "images/p002.png"))
    with pytest.raises(RunConflict, match=r"1 images or labels were replaced or removed.*p002\.png"):
        submit(other)
    for info in STORAGE.list(str(tmp_path / "other/data")):
        STORAGE.delete(info.uri)
    with pytest.raises(RunConflict, match="this run cannot go on without it; choose another --output"):
        submit(other)


@pytest.mark.parametrize("content", ["[]", '"x"', '{"request": null}', "{", "[" * 100_000])
def test_an_output_with_a_strange_recipe_file_is_refused(tmp_path: Path, content: str) -> None:
    data = write_photos(str(tmp_path / "data"))
    STORAGE.write(str(tmp_path / "run/recipe.json"), content.encode())
    with pytest.raises(RunConflict, match="choose another --output"):
        submit(request(data, tmp_path / "run"))
