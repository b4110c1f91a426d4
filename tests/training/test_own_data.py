"""Tests of users' own classes and files: from a folder to a network, and to tables that read the same labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from model.files.checkpoint import METADATA_KEY, read_metadata
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.results.exports.export import Request, export_run
from pipeline.results.statistics.scores import confusion_matrix
from pipeline.results.verify import verify
from pipeline.training.samples.sources import Sources
from tests.segmentation.support import png
from tests.shared import STORAGE
from tests.training.own_data import (
    CLASSES_CSV,
    NAMES,
    SIZE,
    VALUES,
    FileOf,
    by_color,
    by_value,
    by_wide_value,
    refused,
    request,
    scene,
    segment_here,
    submit,
    train_fully,
    write_photos,
)


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
    """Compared with the scenes themselves; no option states how the files are encoded."""
    data = write_photos(str(tmp_path / "data"), write=write, classes=classes)
    checkpoint = train_fully(request(data, tmp_path / "run"))
    metadata = read_metadata(STORAGE.read(checkpoint), METADATA_KEY)
    # Format 1 can only state that values are class ids.
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
    data = write_photos(str(tmp_path / "data"), classes=None)
    output = tmp_path / "run"
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


def test_gray_and_colored_masks_of_one_folder_get_ids_that_fit_both(tmp_path: Path) -> None:
    """The proposed classes file is completed as requested.

    It lists black and white for color files, and black for files of one channel.
    """
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
    data = write_photos(str(tmp_path / "data"), classes=None)
    output = tmp_path / "run"
    for value, file in ((7, None), (9, CLASSES_CSV)):
        if file:
            (output / "classes.csv").write_text(file)
        STORAGE.write(join(data, "masks/p000_mask.png"), png(np.full(SIZE, value, np.uint8)))
        with pytest.raises(ConfigError, match=r"lacks the values \[9\]" if file else r"value +7"):
            submit(request(data, output))
        assert (output / "classes.csv").read_text() == (
            file or "id,name,red,green,blue\n0,,,,\n7,,,,\n128,,,,\n255,ignore,,,\n"
        )
