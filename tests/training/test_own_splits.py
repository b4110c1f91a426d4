"""Tests of splits of own data, of several data sets in one run, and of a second round with corrected labels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from jobs import paint_labels as paint_job
from model.files.checkpoint import from_bytes
from pipeline.data.storage import join
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.exports.export import Request, export_run
from pipeline.training.config import TrainConfig
from pipeline.training.runs.run import train_here
from pipeline.training.samples.sources import Sources
from tests.segmentation.support import png
from tests.shared import STORAGE
from tests.training.own_data import (
    CLASSES_CSV,
    NAMES,
    VALUES,
    by_value,
    request,
    scene,
    segment_here,
    submit,
    train_fully,
    write_photos,
)


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
    """Uncertain images are exported to Label Studio, corrected, painted, and added to the training data."""
    data = write_photos(str(tmp_path / "a"))
    photos = write_photos(str(tmp_path / "new"), count=8, first=100, classes=None)
    first = train_fully(request(data, tmp_path / "run"))
    run = segment_here(images=join(photos, "images"), checkpoint=first, output=str(tmp_path / "out"))
    folder = tmp_path / "to-correct"
    export_run(run.output, Request("label-studio", str(folder), images=5), STORAGE)
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == 5
    for task in tasks:
        # The annotator accepts every brush, so the painted labels must equal the masks.
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


def test_masks_beside_files_of_annotation_tools_are_found(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"))
    STORAGE.write(join(data, "masks/export.json"), b"{}")
    STORAGE.write(join(data, "labels/p000.txt"), b"0 0.5 0.5 1 1")
    assert len(Sources(submit(request(data, tmp_path / "run")), STORAGE).train) >= 8
