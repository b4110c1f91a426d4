"""Users' own classes, files and sizes: from a folder to a network, to tables of the same labels, and round again."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from jobs import paint_labels as paint_job
from model.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from model.dense_prediction import predict
from model.front_end import HEAD_CELLS
from model.geometry import score_map_size
from model.preparation import prepare
from pipeline.data.storage import join
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.exports.export import Request, export_run
from pipeline.results.scores import confusion_matrix
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.parts import part_bytes, part_uri
from pipeline.segmentation.plan import Plan
from pipeline.segmentation.run import segment_bucket
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.shards import ShardReader
from pipeline.training.config import TrainConfig
from pipeline.training.lease import Lease
from pipeline.training.local import train_here
from pipeline.training.maps import map_caches
from pipeline.training.phases import Phase
from pipeline.training.recipes import recipe
from pipeline.training.run import train
from pipeline.training.sources import Sources
from pipeline.training.validation import validate
from pipeline.training.world import World
from tests.segmentation.support import png
from tests.shared import STORAGE

NAMES = ("land", "Wasser", "空")
COLORS = np.array([(150, 110, 60), (30, 60, 200), (200, 220, 240)], np.uint8)
SIZE = (36, 52)
CLASSES_CSV = "id,name\n0,land\n128,Wasser\n255,空\n"
VALUES = np.array([0, 128, 255])
FileOf = Callable[[np.ndarray], bytes]


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image, ids): blocks of the three classes in their colors, under noise."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (-(-size[0] // 12), -(-size[1] // 12))).repeat(12, 0).repeat(12, 1)[: size[0], : size[1]]
    image = COLORS[ids] + rng.normal(0, 12, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), ids


def by_value(ids: np.ndarray) -> bytes:
    return png(VALUES[ids].astype(np.uint8))


def by_color(ids: np.ndarray) -> bytes:
    return png(COLORS[ids])


def by_wide_value(ids: np.ndarray) -> bytes:
    return png(np.array([0, 128, 40_000], np.uint16)[ids])


def write_photos(
    root: str,
    count: int = 10,
    first: int = 0,
    write: FileOf = by_value,
    classes: str | None = CLASSES_CSV,
    name: str = "{}_mask.png",
) -> str:
    """Write photographs and masks as people have them, and perhaps a classes file."""
    for seed in range(first, first + count):
        image, ids = scene(seed)
        STORAGE.write(join(root, "images", f"p{seed:03d}.png"), png(image))
        STORAGE.write(join(root, "masks", name.format(f"p{seed:03d}")), write(ids))
    if classes is not None:
        STORAGE.write(join(root, "classes.csv"), classes.encode())
    return root


def request(data: str | list[str], output: object, **options: Any) -> TrainConfig:
    """The recipe `custom` with the narrowest network and a few steps, and options of the recipe or the run."""
    changes = {name: options.pop(name) for name in ("resize", "seed", "mean_bgr") if name in options}
    chosen = recipe("custom")
    network = {"scale": 1 / 32, "fc": 8, **options.pop("network", {})}
    stages = {name: options.pop(name, {"iterations": count}) for name, count in (("front_end", 3), ("joint", 1))}
    updates: dict[str, Any] = {"network": chosen.network.model_copy(update=network), **changes}
    updates |= {name: chosen.stage(name).model_copy(update=stage) for name, stage in stages.items()}
    settings: dict[str, Any] = {"data": data, "output": str(output), "recipe": chosen.model_copy(update=updates)}
    return TrainConfig(**settings, **options)


def submit(config: TrainConfig) -> TrainConfig:
    """What `jobs/train.py` gives its workers."""
    started: list[TrainConfig] = []

    class Started(Exception):
        """Enough is known."""

    def run_phase(prepared: TrainConfig, phase: Phase, lease: Lease) -> None:
        started.append(prepared)
        raise Started

    with contextlib.suppress(Started):
        train(config, lambda config: None, run_phase, STORAGE)
    return started[0]


def train_fully(config: TrainConfig) -> str:
    """Train to the end in this process; return the URI of the network."""
    train_here(submit(config), STORAGE)
    return join(config.output, "network.safetensors")


def segment_here(**settings: Any) -> Run:
    """A whole segmentation in this process, with the checkpoint's own network."""
    config = SegmentConfig(**settings)

    def run_shards(plan: Plan, shards: list[int]) -> None:
        network = prepare(from_bytes(STORAGE.read(config.checkpoint)), 0)
        segmenter = Segmenter(network, plan.config, plan.run_id, STORAGE)
        reader = ShardReader(STORAGE, config.output, config.shard_images)
        for shard in shards:
            result = segmenter.segment(reader.rows(shard))
            data = part_bytes(result.table, result.confusion, shard, plan.identity)
            STORAGE.write_once(part_uri(config.output, shard, plan.identity), data)

    segment_bucket(config, lambda config: None, run_shards, STORAGE)
    return Run(config.output, STORAGE)


@pytest.mark.parametrize(
    ("write", "classes"),
    [
        (by_value, CLASSES_CSV),
        (by_wide_value, "id,name\n0,land\n128,Wasser\n40000,空\n"),
        (by_color, "id,name,red,green,blue\n0,land,150,110,60\n1,Wasser,30,60,200\n2,空,200,220,240\n"),
        (lambda ids: png(ids.astype(np.uint8)), "id,name\n0,land\n1,Wasser\n2,空\n"),
    ],
)
def test_segmentation_reads_the_labels_as_training_did(tmp_path: Path, write: FileOf, classes: str) -> None:
    """Against the scenes themselves: no option tells how the files are encoded."""
    data = write_photos(str(tmp_path / "data"), write=write, classes=classes)
    checkpoint = train_fully(request(data, tmp_path / "run"))
    metadata = read_metadata(STORAGE.read(checkpoint), METADATA_KEY)
    # Format 1 can say that values are class ids, and no more.
    assert metadata["format"] == (1 if classes == "id,name\n0,land\n1,Wasser\n2,空\n" else 2)
    settings = {"images": join(data, "images"), "labels": join(data, "masks"), "checkpoint": checkpoint}
    run = segment_here(**settings, output=str(tmp_path / "out"))
    assert run.success["labelled_images"] == 10 and run.success["errors"] == 0
    assert tuple(run.classes) == NAMES
    total = np.zeros((3, 3), np.int64)
    for uri, mask in run.masks():
        _, ids = scene(int(Path(uri).stem[1:]))
        total += confusion_matrix(ids.astype(np.uint8), mask, 3, 255)
    assert np.array_equal(run.confusion().to_numpy(), total)
    assert verify(run.output).ok
    export_run(run.output, Request("index-png", str(tmp_path / "png"), label_values=True), STORAGE)
    values = run.label_space().file_values()
    for uri, mask in run.masks():
        with Image.open(tmp_path / "png" / f"{Path(uri).stem}.png") as image:
            assert np.array_equal(np.asarray(image), np.array(values)[mask])


def test_a_label_of_another_class_or_size_is_an_error_row(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"), count=6)
    checkpoint = train_fully(request(data, tmp_path / "run"))
    STORAGE.write(join(data, "masks/p001_mask.png"), png(np.full(SIZE, 7, np.uint8)))
    STORAGE.write(join(data, "masks/p002_mask.png"), png(np.zeros((5, 5), np.uint8)))
    settings = {"images": join(data, "images"), "labels": join(data, "masks"), "checkpoint": checkpoint}
    run = segment_here(**settings, output=str(tmp_path / "out"), max_error_fraction=1.0)
    messages = dict(zip(run.errors()["image_uri"], run.errors()["error_message"], strict=True))
    assert len(messages) == 2
    assert (
        r"p001_mask.png has values of no class: [7] (1,872 of 1,872 pixels)" in messages[join(data, "images/p001.png")]
    )
    assert "5×5 pixels" in messages[join(data, "images/p002.png")]


def test_without_classes_it_says_what_the_labels_hold_and_writes_a_file_to_fill_in(tmp_path: Path) -> None:
    data, output = write_photos(str(tmp_path / "data"), classes=None), tmp_path / "run"
    with pytest.raises(ConfigError) as refusal:
        submit(request(data, output))
    lines = str(refusal.value).splitlines()
    assert "has no classes.csv and no classes.json" in lines[0] and "10 of its labels hold" in lines[0]
    shares = {int(line.split()[1]): float(line.split()[2]) for line in lines[1:4]}
    pixels = np.concatenate([VALUES[scene(seed)[1]].ravel() for seed in range(10)])
    assert shares == pytest.approx({value: 100 * (pixels == value).mean() for value in VALUES.tolist()}, abs=0.006)
    assert all("p000_mask.png and p001_mask.png" in line for line in lines[1:4])
    assert lines[-1].endswith(f"--classes {output}/classes.csv") and refusal.value.exit_code == 2
    template = (output / "classes.csv").read_text()
    assert template == "id,name,red,green,blue\n0,,,,\n128,,,,\n255,ignore,,,\n"
    with pytest.raises(ConfigError, match=r"classes\.csv, line 2 gives id 0 no name: fill it in"):
        submit(request(data, output, classes=f"{output}/classes.csv"))
    (output / "classes.csv").write_text(CLASSES_CSV)
    with pytest.raises(ConfigError, match=r"has no classes\.csv"):
        submit(request(data, output))
    assert (output / "classes.csv").read_text() == CLASSES_CSV
    prepared = submit(request(data, output, classes=f"{output}/classes.csv"))
    assert prepared.recipe.spec().classes == NAMES


def test_color_masks_without_classes_give_a_file_with_colors(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"), write=by_color, classes=None)
    with pytest.raises(ConfigError, match=r"color \(30, 60, 200\)"):
        submit(request(data, tmp_path / "run"))
    template = (tmp_path / "run/classes.csv").read_text()
    assert template.splitlines()[1:] == ["256,,30,60,200", "257,,150,110,60", "258,,200,220,240"]


def test_what_is_derived_is_derived_once(tmp_path: Path) -> None:
    data, output = write_photos(str(tmp_path / "data"), count=20), tmp_path / "run"
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
    # More photographs and other classes come too late for this run.
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
    """Stopped after a checkpoint, photographs added, submitted again: the same weights as a run that saw none."""
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
    old, new = from_bytes(STORAGE.read(first)), prepared.recipe
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
    # Validation scores at the images' own size.
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
    """Context and head learn on cached maps: those of the resized images, in training and in validation."""
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
    # Runs at another size, or at none, may share the folder of maps.
    network.spec = replace(network.spec, resize=None)
    assert maps.missing(sources.val, [False]) == []
    assert map_caches(config, STORAGE, network)["features"].missing(sources.val, [False]) == [(0, False)]


def refused(options: dict[str, Any], message: str, tmp_path: Path, **files: Any) -> None:
    data = write_photos(str(tmp_path / "data"), **files)
    with pytest.raises(ConfigError, match=message) as refusal:
        submit(request(data, tmp_path / "run", **options))
    assert refusal.value.exit_code == 2
    assert not (tmp_path / "run/recipe.json").exists()


@pytest.mark.parametrize(
    ("options", "files", "message"),
    [
        ({}, {"count": 1}, r"data has 1 images, too few to set one aside"),
        ({"val_group": "x([0-9]+)"}, {}, r"--val-group 'x\(\[0-9\]\+\)' matches none of 10 images.*such as 'p000'"),
        ({}, {"classes": "id,name\n0,a\n128,b\n"}, None),
        ({}, {"classes": "id,name\n0,a\n255,b\n"}, r"p\d+_mask\.png cannot be .*\[128\] \(\d+ of 1,872 pixels\)"),
        ({"classes": "/none/classes.csv"}, {}, r"there is no classes file /none/classes\.csv"),
        (
            {"network": {"scale": -1, "weights": "/none.safetensors"}},
            {},
            r"--network\.weights /none\.safetensors: there",
        ),
        ({"require_labels": True}, {"name": "{}_mask.png"}, None),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], files: dict[str, Any], message: str | None
) -> None:
    if message is None:
        data = write_photos(str(tmp_path / "data"), **files)
        assert submit(request(data, tmp_path / "run", **options)).frozen is not None
    else:
        refused(options, message, tmp_path, **files)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="it is no regular expression"):
        request("data", "run", val_group="(")
    with pytest.raises(ValidationError, match="each of them once"):
        request(["data", "data/"], "run")


def test_labels_of_another_size_are_refused_in_the_sample(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"))
    STORAGE.write(join(data, "masks/p003_mask.png"), png(np.zeros((9, 9), np.uint8)))
    with pytest.raises(ConfigError, match=r"p003_mask\.png has 9×9 pixels .*its image 36×52: give image and label one"):
        submit(request(data, tmp_path / "run"))


def test_several_data_sets_may_write_their_classes_differently(tmp_path: Path) -> None:
    first = write_photos(str(tmp_path / "a"))
    second = write_photos(
        str(tmp_path / "b"),
        6,
        50,
        lambda ids: png(np.array([9, 0, 1], np.uint8)[ids]),
        "id,name\n0,Wasser\n1,空\n9,land\n",
    )
    third = write_photos(str(tmp_path / "c"), count=1, first=80, classes=None)
    config = submit(request([first, second, third], tmp_path / "run"))
    assert config.recipe.spec().classes == NAMES
    sources = Sources(config, STORAGE)
    assert len(sources.train) + len(sources.val) == 17
    for images in (sources.train, sources.val):
        for index, pair in enumerate(images.pairs):
            assert np.array_equal(images.label(index), scene(int(Path(pair.image_uri).stem[1:]))[1])
    assert submit(request([first, second, third], tmp_path / "run")) == config
    with pytest.raises(RunConflict, match="data was"):
        submit(request([first, second], tmp_path / "run"))
    STORAGE.write(join(second, "classes.csv"), b"id,name\n0,Wasser\n1,Mond\n9,land\n")
    with pytest.raises(ConfigError, match=r"b/classes\.csv has the class 'Mond', which the first data set lacks"):
        submit(request([first, second], tmp_path / "other"))


def test_round_again(tmp_path: Path) -> None:
    """Uncertain images go to Label Studio, come back corrected, are painted, and join the training data."""
    data = write_photos(str(tmp_path / "a"))
    photos = write_photos(str(tmp_path / "new"), count=8, first=100, classes=None)
    first = train_fully(request(data, tmp_path / "run"))
    run = segment_here(images=join(photos, "images"), checkpoint=first, output=str(tmp_path / "out"))
    folder = tmp_path / "to-correct"
    export_run(run.output, Request("label-studio", str(folder), images=5), STORAGE)
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == 5
    for task in tasks:
        # The annotator agrees with every brush: what comes back must be the masks themselves.
        (prediction,) = task.pop("predictions")
        task["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]
    (tmp_path / "corrected.json").write_text(json.dumps(tasks))
    classes = ["--classes", join(data, "classes.csv")]
    assert paint_job.main([str(tmp_path / "corrected.json"), "--output", str(tmp_path / "b"), *classes]) == 0
    painted = {Path(task["data"]["image"]).stem: task["data"]["image"] for task in tasks}
    for stem, uri in painted.items():
        stored = np.asarray(Image.open(tmp_path / "b/labels" / f"{stem}.png"))
        assert np.array_equal(stored, VALUES[run.mask(uri)])
    second = request([data, str(tmp_path / "b")], tmp_path / "run2", network={"scale": -1, "weights": first})
    prepared = submit(second)
    assert len(Sources(prepared, STORAGE).train) + len(Sources(prepared, STORAGE).val) == 15
    train_here(prepared, STORAGE)
    provenance = from_bytes(STORAGE.read(join(second.output, "network.safetensors"))).spec.provenance["weights"]
    assert provenance["copied"] == ["front end", "context module"]
    with Image.open(io.BytesIO(STORAGE.read(join(str(tmp_path / "b"), f"labels/{next(iter(painted))}.png")))) as image:
        assert image.mode == "L"


def test_frames_of_one_drive_stay_together_over_all_data_sets(tmp_path: Path) -> None:
    names = ("s1_{}", "s2_{}", "s3_{}", "s4_{}")
    for number, root in enumerate(("a", "b")):
        for drive, name in enumerate(names):
            image, ids = scene(10 * number + drive)
            for folder, content in (("images", png(image)), ("masks", by_value(ids))):
                STORAGE.write(join(str(tmp_path), root, folder, f"{name.format(number)}.png"), content)
        STORAGE.write(join(str(tmp_path), root, "classes.csv"), CLASSES_CSV.encode())
    roots = [str(tmp_path / root) for root in ("a", "b")]
    sources = Sources(submit(request(roots, tmp_path / "run", val_group="(s[0-9])_", val_fraction=0.3)), STORAGE)
    drives = [{Path(pair.image_uri).stem[:2] for pair in each.pairs} for each in (sources.train, sources.val)]
    assert drives[0] | drives[1] == {"s1", "s2", "s3", "s4"} and not drives[0] & drives[1] and all(drives)


def test_an_image_in_two_data_sets_is_refused(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "a"))
    rows = [f"{data}/images/p{seed:03d}.png,{data}/masks/p{seed:03d}_mask.png" for seed in (3, 4)]
    STORAGE.write(str(tmp_path / "b/pairs.csv"), "\n".join(["image_uri,label_uri", *rows]).encode())
    with pytest.raises(ConfigError, match=r"2 images are in --data twice, first .*images/p003\.png"):
        submit(request([data, str(tmp_path / "b")], tmp_path / "run"))


def test_a_list_of_pairs_keeps_its_split_while_it_grows(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "a/day1"), count=20, classes=None)
    write_photos(str(tmp_path / "a/day2"), count=10, first=20, classes=None)

    def validates(days: dict[str, range], output: str) -> set[str]:
        rows = [
            f"{tmp_path}/a/{day}/images/p{seed:03d}.png,{tmp_path}/a/{day}/masks/p{seed:03d}_mask.png"
            for day, seeds in days.items()
            for seed in seeds
        ]
        STORAGE.write(str(tmp_path / "b/pairs.csv"), "\n".join(["image_uri,label_uri", *rows]).encode())
        config = request(
            str(tmp_path / "b"), tmp_path / output, val_fraction=0.5, classes=str(tmp_path / "classes.csv")
        )
        return {pair.image_uri for pair in Sources(submit(config), STORAGE).val.pairs}

    STORAGE.write(str(tmp_path / "classes.csv"), CLASSES_CSV.encode())
    before = validates({"day1": range(20)}, "first")
    after = validates({"day1": range(20), "day2": range(20, 30)}, "second")
    assert {uri for uri in after if uri.startswith(data)} == before


def test_a_second_kind_of_data_with_own_classes_is_refused(tmp_path: Path) -> None:
    config = request("data", tmp_path)
    mixing = config.recipe.model_copy(
        update={"front_end": config.recipe.front_end.model_copy(update={"extra_data": True})}
    )
    with pytest.raises(ValidationError, match="give it as a further --data instead"):
        TrainConfig(data="data", output=str(tmp_path), recipe=mixing, extra_data="extra")


def test_training_and_validation_are_splits_too(tmp_path: Path) -> None:
    for split, seeds in (("training", range(4)), ("validation", range(4, 6)), ("test", range(6, 9))):
        for seed in seeds:
            image, ids = scene(seed)
            STORAGE.write(str(tmp_path / f"data/images/{split}/{seed}.png"), png(image))
            STORAGE.write(str(tmp_path / f"data/annotations/{split}/{seed}.png"), by_value(ids))
    STORAGE.write(str(tmp_path / "data/classes.csv"), CLASSES_CSV.encode())
    sources = Sources(submit(request(str(tmp_path / "data"), tmp_path / "run")), STORAGE)
    names = [sorted(Path(pair.image_uri).stem for pair in each.pairs) for each in (sources.train, sources.val)]
    assert names == [["0", "1", "2", "3"], ["4", "5"]]


def test_gray_and_colored_masks_of_one_folder_get_ids_that_fit_both(tmp_path: Path) -> None:
    """The file to fill in, filled in as asked: black and white in color files, black in files of one channel."""
    data = str(tmp_path / "data")
    colors = np.array([(0, 0, 0), (255, 255, 255), (0, 0, 128)], np.uint8)
    for seed in range(6):
        image, ids = scene(seed)
        STORAGE.write(join(data, "images", f"{seed}.png"), png(image))
        STORAGE.write(join(data, "masks", f"{seed}.png"), png(colors[ids] if seed else np.zeros(SIZE, np.uint8)))
    with pytest.raises(ConfigError, match=r"color \(255, 255, 255\)"):
        submit(request(data, tmp_path / "run"))
    template = (tmp_path / "run/classes.csv").read_text()
    assert [line.split(",")[0] for line in template.splitlines()[1:]] == ["0", "257", "255"]
    named = template.replace("0,,0,0,0", "0,land,0,0,0").replace(",,0,0,128", ",Wasser,0,0,128")
    (tmp_path / "run/classes.csv").write_text(named.replace("255,,", "255,空,"))
    sources = Sources(submit(request(data, tmp_path / "run", classes=str(tmp_path / "run/classes.csv"))), STORAGE)
    order = [0, 2, 1]
    for images in (sources.train, sources.val):
        for index, pair in enumerate(images.pairs):
            seed = int(Path(pair.image_uri).stem)
            assert np.array_equal(images.label(index), np.array(order)[scene(seed)[1]] if seed else np.zeros(SIZE))


def test_the_file_to_fill_in_keeps_up_with_the_labels(tmp_path: Path) -> None:
    data, output = write_photos(str(tmp_path / "data"), classes=None), tmp_path / "run"
    for value, file in ((7, None), (9, CLASSES_CSV)):
        if file:
            (output / "classes.csv").write_text(file)
        STORAGE.write(join(data, "masks/p000_mask.png"), png(np.full(SIZE, value, np.uint8)))
        with pytest.raises(ConfigError, match=r"lacks the values \[9\]" if file else r"value +7"):
            submit(request(data, output))
        assert (output / "classes.csv").read_text() == (
            file or "id,name,red,green,blue\n0,,,,\n7,,,,\n128,,,,\n255,ignore,,,\n"
        )


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


def test_masks_beside_files_of_annotation_tools_are_found(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"))
    STORAGE.write(join(data, "masks/export.json"), b"{}")
    STORAGE.write(join(data, "labels/p000.txt"), b"0 0.5 0.5 1 1")
    assert len(Sources(submit(request(data, tmp_path / "run")), STORAGE).train) >= 8
