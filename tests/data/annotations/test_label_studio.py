"""Tests of Label Studio's JSON export, against its own encoder, ours, and masks written out by hand."""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.annotations.label_studio import decode_brush
from pipeline.data.labels import encode_mask
from pipeline.errors import ConfigError
from pipeline.results.exports.label_studio import _task, brush_rle
from pipeline.results.exports.masks import Classes, Exported
from tests.data.annotations.support import (
    FILES,
    HEIGHT,
    WIDTH,
    brush_result,
    ls_result,
    ls_task,
    paint,
    read_classes_csv,
    read_png,
    write_json,
)

BLOB = np.zeros((HEIGHT, WIDTH), bool)
BLOB[2:6, 3:9] = True


def test_brushes_of_label_studios_own_encoder_are_decoded() -> None:
    """The fixture holds masks and run lengths by Label Studio's own encoder.

    They were made with label_studio_sdk 2.1.2, by its `converter/brush.py`:

        mask2rle(mask)              blob, noise and full: (H, W) uint8 of 0 and 255
        encode_rle(rgba.ravel())    rgba: one region of (0, 255, 0, 100), one of (10, 20, 30, 255)

    `full` is 300 rows of 310 pixels, all in the region: its runs have the longest length.
    """
    brushes = json.loads((FILES / "label_studio_brushes.json").read_text())
    assert [brush["name"] for brush in brushes] == ["blob", "noise", "rgba", "full"]
    for brush in brushes:
        expected = np.ones((300, 310), bool)
        if brush["rows"] is not None:
            expected = np.array([[cell == "#" for cell in row] for row in brush["rows"]])
        assert (decode_brush(bytes(brush["rle"]), brush["height"], brush["width"]) == expected).all()


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32))
def test_our_own_brushes_are_decoded(height: int, width: int, share: float, seed: int) -> None:
    region = np.random.default_rng(seed).random((height, width)) < share
    assert (decode_brush(bytes(brush_rle(region)), height, width) == region).all()


def naive_rle(values: list[int], sizes: tuple[int, int, int, int], generator: random.Random) -> bytes:
    """Encode values in random runs and random stretches of single values, bit by bit."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    place = 0
    while place < len(values):
        kind = generator.randrange(4)
        longest = min(2 ** sizes[kind], len(values) - place)
        length = generator.randint(1, longest)
        if generator.random() < 0.5:
            same = next((n for n in range(length) if values[place + n] != values[place]), length)
            bits += f"1{kind:02b}{same - 1:0{sizes[kind]}b}{values[place]:08b}"
            place += same
        else:
            bits += f"0{kind:02b}{length - 1:0{sizes[kind]}b}"
            bits += "".join(f"{value:08b}" for value in values[place : place + length])
            place += length
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 16)] * 4))
def test_runs_and_single_values_of_any_lengths(seed: int, sizes: tuple[int, int, int, int]) -> None:
    generator = random.Random(seed)
    height = generator.randint(1, 12)
    width = generator.randint(1, 12)
    values = [generator.choice([0, 0, 0, 255, 255, 1]) for _ in range(height * width * 4)]
    expected = np.array(values).reshape(height, width, 4).any(axis=2)
    assert (decode_brush(naive_rle(values, sizes, generator), height, width) == expected).all()


def test_a_megapixel_of_noise_takes_about_a_second() -> None:
    region = np.random.default_rng(0).random((1000, 1000)) < 0.5
    rle = bytes(brush_rle(region))
    start = time.process_time()
    assert (decode_brush(rle, 1000, 1000) == region).all()
    # Half a million runs take 0.4 s; the limit leaves room for a busy machine.
    assert time.process_time() - start < 4


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=3), st.integers(2, 5))
def test_our_own_pre_annotations_come_back_exactly(seeds: list[int], count: int) -> None:
    names = ("background", *(f"class {number}" for number in range(1, count)))
    masks = [
        np.random.default_rng(seed).integers(0, count, (3 + seed % 9, 2 + seed % 7), dtype=np.uint8) for seed in seeds
    ]
    for mask in masks:
        mask[0, :2] = 0, count - 1
    tasks = []
    for number, mask in enumerate(masks):
        png = encode_mask(mask, [(0, 0, 0)] * 256)
        exported = Exported(f"s3://bucket/in/{number}.jpg", "x", (mask.shape[0], mask.shape[1]), png, 0.5, None)
        classes = Classes(names, ((0, 0, 0),) * count, tuple(range(count)))
        task = _task(exported, classes)
        tasks.append({**task, "annotations": task.pop("predictions"), "id": number})
    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(f"{each},{name}\n" for each, name in enumerate(names))
        Path(folder, "own.csv").write_text(f"id,name\n{rows}")
        source = write_json(Path(folder, "tasks.json"), tasks)
        painted = paint(source, folder, classes=f"{folder}/own.csv")
        for number, mask in enumerate(masks):
            assert read_png(folder, str(number)).tolist() == mask.tolist()
        assert painted.void == 0 and Path(folder, "classes.csv").read_text() == f"id,name\n{rows}"


def test_polygons_and_rectangles_are_in_percent_of_the_image(tmp_path: Path) -> None:
    polygon = {"points": [[25, 50], [75, 50], [75, 100], [25, 100]], "polygonlabels": ["pole"], "closed": True}
    box = {"x": 0, "y": 0, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["sign"]}
    turned = {**box, "rotation": 30}
    results = [
        ls_result("polygonlabels", polygon),
        ls_result("rectanglelabels", box),
        ls_result("rectanglelabels", turned),
        {"type": "choices", "value": {"choices": ["good"]}},
        {"type": "ellipselabels", "value": {}},
    ]
    painted = paint(write_json(tmp_path / "x.json", [ls_task(results)]), tmp_path)
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[6:12, 4:12] = 1
    expected[0:3, 0:8] = 2
    assert read_png(tmp_path, "a").tolist() == expected.tolist()
    assert read_classes_csv(tmp_path) == ["0,background,,,", "1,pole,,,", "2,sign,,,"]
    assert dict(painted.skipped) == {
        "of type rectanglelabels, rotated": 1,
        "of type choices": 1,
        "of type ellipselabels": 1,
    }
    assert Path(tmp_path, "pairs.csv").read_text() == f"image_uri,label_uri\ns3://in/x/a.jpg,{tmp_path}/labels/a.png\n"


def annotation(label: str, updated: str | None, **changes: Any) -> dict[str, Any]:
    return {"was_cancelled": False, "updated_at": updated, "result": [brush_result(label, brush_rle(BLOB))], **changes}


def test_the_newest_annotation_counts_and_tasks_without_one_are_left_out(tmp_path: Path) -> None:
    result = [brush_result("old", brush_rle(BLOB))]
    tasks = [
        ls_task([], "s3://in/x/1.jpg") | {"annotations": [
            annotation("new", "2025-03-09T22:16:08.5Z"),
            annotation("old", "2025-03-09T22:16:08Z"),
            annotation("gone", "2026-01-01T00:00:00Z", was_cancelled=True)]},
        ls_task([], "s3://in/x/2.jpg") | {"annotations": [annotation("old", None), annotation("new", None)]},
        ls_task([], "s3://in/x/3.jpg") | {"annotations": [], "predictions": [{"result": result}]},
        ls_task([], "s3://in/x/4.jpg") | {"annotations": [annotation("gone", None, was_cancelled=True)]},
        ls_task([], "s3://in/x/5.jpg") | {"annotations": []},
        ls_task([], "s3://in/x/6.jpg"),
        ls_task([{**result[0], "image_rotation": 90}], "s3://in/x/7.jpg"),
    ]  # fmt: skip
    painted = paint(write_json(tmp_path / "x.json", tasks), tmp_path)
    assert painted.images == 2 and dict(painted.left_out) == {
        "only predictions, not corrected yet": 1,
        "skipped by the annotator": 1,
        "no annotation": 1,
        "no object": 1,
        "rotated in Label Studio": 1,
    }
    assert read_classes_csv(tmp_path) == ["0,background,,,", "1,new,,,"]


def test_names_are_paths_below_the_shared_folder(tmp_path: Path) -> None:
    results = [brush_result("a", brush_rle(BLOB))]
    images = ["s3://in/x/u/1.jpg", "s3://in/x/v/w/1.jpg"]
    paint(write_json(tmp_path / "x.json", [ls_task(results, image) for image in images]), tmp_path)
    assert read_png(tmp_path, "u/1").any() and read_png(tmp_path, "v/w/1").any()


@pytest.mark.parametrize(
    "data",
    [
        {"image": "/data/upload/3/1a2b3c4d-one.jpg", "other": "https://x/y.jpg"},
        {"picture": "/data/local-files/?d=some/where/one.jpg", "note": "two.jpg or not", "number": 7},
        {"pic": "https://host/path/one.jpg?token=1", "id": "7"},
        {"pic": "one.jpg"},
    ],
)
def test_images_that_only_the_server_knows_are_looked_up_by_name(tmp_path: Path, data: dict[str, Any]) -> None:
    task = ls_task([brush_result("a", brush_rle(BLOB))]) | {"data": data}
    source = write_json(tmp_path / "x.json", [task])
    assert (painted := paint(source, tmp_path / "out")).unlocated and painted.pairs is None
    image = tmp_path / "in/deep/one.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    painted = paint(source, tmp_path / "out", images=str(tmp_path / "in"))
    label = tmp_path / "out/labels/deep/one.png"
    assert (tmp_path / "out/pairs.csv").read_text() == f"image_uri,label_uri\n{image},{label}\n" and label.exists()
    (tmp_path / "in/one.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"task 5 may be deep/one\.jpg or one\.jpg"):
        paint(source, tmp_path / "out", images=str(tmp_path / "in"))


GOOD = brush_result("a", brush_rle(BLOB))


def with_value(**values: Any) -> dict[str, Any]:
    return ls_task([{**GOOD, "value": {**GOOD["value"], **values}}])


POINTS = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["a"]}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"id": 3, "image": "s3://in/a.jpg", "tag": []}, "task 3 has no data: this is not Label Studio's format JSON;"),
        (7, "task 0 has no data"),
        (ls_task([GOOD]) | {"data": {}}, "task 5: its data has no image, and 0 values"),
        (ls_task([GOOD]) | {"data": {"a": "x/1.jpg", "b": "x/2.jpg"}}, "2 values that look like the URI"),
        (ls_task([GOOD], "s3://in/../a.jpg"), "file name 'in/../a.jpg'"),
        (ls_task([GOOD], ""), "file name ''"),
        (ls_task([GOOD], "http://[x/a.jpg"), "task 5"),
        (ls_task([GOOD]) | {"annotations": 7}, "annotations is not a list"),
        (ls_task([GOOD]) | {"annotations": [7]}, "an annotation is of type int"),
        (ls_task([GOOD]) | {"annotations": [annotation("a", "yesterday")]}, "task 5: .*yesterday"),
        (ls_task([GOOD]) | {"annotations": [annotation("a", None, result=None)]}, "task 5"),
        (ls_task([GOOD]) | {"annotations": [annotation("a", None, updated_at=7)]}, "task 5"),
        (ls_task([7]), "type is missing"),
        (ls_task([{**GOOD, "value": None}]), "value is missing"),
        (ls_task([{**GOOD, "original_width": None}]), "original_width is missing"),
        (ls_task([{**GOOD, "original_width": 10**7}]), "no size"),
        (ls_task([{**GOOD, "original_width": WIDTH + 1}]), "task 5: the brush's rle is 768 values of 8 bits, must be"),
        (ls_task([GOOD, {**GOOD, "original_width": 3}]), "state the image sizes"),
        (with_value(brushlabels=["a", "b"]), "must be one"),
        (with_value(brushlabels=[]), "must be one"),
        (with_value(brushlabels=None), "brushlabels is missing"),
        (with_value(brushlabels=[7]), "must be one"),
        (with_value(brushlabels=[" "]), "class name"),
        (with_value(format="png"), "format of a brush is 'png'"),
        (with_value(rle="abc"), "rle is 'abc'"),
        (with_value(rle=[256]), "task 5"),
        (with_value(rle=["x"]), "task 5"),
        (with_value(rle=[]), "is cut off"),
        (with_value(rle=brush_rle(BLOB)[:12]), "ends after"),
        (with_value(rle=brush_rle(BLOB)[:8]), "ends after"),
        (ls_task([ls_result("polygonlabels", {**POINTS, "points": [[1, 2, 3]] * 3})]), "task 5"),
        (ls_task([ls_result("polygonlabels", {**POINTS, "points": [[1, "x"]] * 3})]), "task 5"),
        (ls_task([ls_result("polygonlabels", {**POINTS, "points": [[1, 1e9]] * 3})]), "task 5"),
        (ls_task([ls_result("rectanglelabels", {"x": 1, "rectanglelabels": ["a"]})]), "y is missing"),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, task: Any, message: str) -> None:
    source = write_json(tmp_path / "broken.json", [ls_task([GOOD], "s3://in/x/0.jpg"), task])
    source = source if isinstance(task, dict) else write_json(source, [task])
    with pytest.raises(ConfigError, match=message) as refusal:
        paint(source, tmp_path)
    assert "broken.json" in str(refusal.value)


def test_no_tasks_and_tasks_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no image to paint .it has no images"):
        paint(write_json(tmp_path / "x.json", []), tmp_path)
    with pytest.raises(ConfigError, match=r"task 6 and .*task 5 share the name a"):
        paint(write_json(tmp_path / "x.json", [ls_task([GOOD]), ls_task([GOOD]) | {"id": 6}]), tmp_path)


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_any_damaged_brush_is_refused_or_decoded(seed: int) -> None:
    generator = random.Random(seed)
    rle = bytearray(brush_rle(BLOB))
    for _ in range(generator.randint(1, 4)):
        rle[generator.randrange(4, len(rle))] = generator.randrange(256)
    del rle[generator.randint(1, len(rle)) :]
    try:
        assert decode_brush(bytes(rle), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)
    except ValueError as error:
        assert "rle" in str(error)


WRONG = st.sampled_from(
    [None, True, -1, 1.5, float("nan"), 10**400, "", "\ud800", "a\0", "../x", "http://[", "//x", [], [[]], {}, [None]]
)


def entries(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value below `value`; of a list, only the first three items are visited."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [found for key, each in items for found in [(*place, key), *entries(each, (*place, key))]]


@settings(max_examples=200)
@given(st.data())
def test_any_wrong_value_is_refused_or_harmless(data: st.DataObject) -> None:
    tasks: list[Any] = json.loads(json.dumps([ls_task([GOOD, ls_result("polygonlabels", POINTS)])]))
    *way, last = data.draw(st.sampled_from(entries(tasks)))
    target: Any = tasks
    for key in way:
        target = target[key]
    target[last] = data.draw(WRONG)
    with tempfile.TemporaryDirectory() as folder:
        try:
            paint(write_json(Path(folder, "x.json"), tasks), folder)
        except ConfigError as error:
            assert "x.json" in str(error)
