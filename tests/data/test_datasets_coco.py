"""Tests of COCO's objects as VOC label images, against rules written out pixel by pixel."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline.data.datasets.coco_index import json_elements, read_json_elements
from pipeline.data.label_spaces import label_space
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.training.samples.dataset import LabelledImages
from tests.segmentation.support import png
from tests.shared import STORAGE

SPACE = label_space("voc")
HEIGHT = 30
WIDTH = 40
PERSON = 1
TABLE = 67
BOTTLE = 44
ZEBRA = 24
SOFA = 63
NAMES = {PERSON: "person", TABLE: "dining table", BOTTLE: "bottle", ZEBRA: "zebra", SOFA: "couch"}
VOC = {PERSON: "person", TABLE: "diningtable", BOTTLE: "bottle", SOFA: "sofa"}


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return uncompressed run lengths, column by column, beginning with background."""
    flat = mask.ravel(order="F")
    counts = [0]
    value = 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": [int(count) for count in counts]}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def box_mask(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


Thing = tuple[int, Any, bool]  # category, segmentation, crowd


def write_coco(root: str, scenes: dict[int, list[Thing]], split: str = "train2017", **changes: Any) -> str:
    """Write images and an annotation file in the order of the published ones, with categories last."""
    images = []
    annotations = []
    for number, things in scenes.items():
        name = f"{number:012d}.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        STORAGE.write(join(root, split, name), png(pixels))
        images.append({"license": 3, "file_name": name, "height": HEIGHT, "width": WIDTH, "id": number})
        for category, segmentation, crowd in things:
            entry = {"segmentation": segmentation, "iscrowd": int(crowd), "image_id": number, "category_id": category}
            annotations.append(entry | {"id": len(annotations)})
    categories = [{"supercategory": "x", "id": number, "name": name} for number, name in NAMES.items()]
    content = {"info": {"year": 2017}, "licenses": [{"id": 3}], "images": images, "annotations": annotations}
    content |= {"categories": categories} | changes
    STORAGE.write(join(root, f"annotations/instances_{split}.json"), json.dumps(content).encode())
    return root


def oracle(things: list[Thing]) -> np.ndarray:
    """Paint object by object by the stated rules, from masks that pycocotools decodes."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    masks = [decoded(segmentation) for _, segmentation, _ in things]
    for row in range(HEIGHT):
        for column in range(WIDTH):
            here = [(mask.sum(), thing) for mask, thing in zip(masks, things, strict=True) if mask[row, column]]
            here = [(size, (category, crowd)) for size, (category, _, crowd) in here if category in VOC]
            single = [(size, category) for size, (category, crowd) in here if not crowd]
            if single:
                ids[row, column] = SPACE.classes.index(VOC[min(single)[1]])
            elif here:
                ids[row, column] = 255
    return ids


def decoded(segmentation: Any) -> np.ndarray:
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)))
    if isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation)
    return coco_mask.decode(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))


CROWD = box_mask(25, 0, 40, 12)
SCENES: dict[int, list[Thing]] = {
    # A bottle on a table, drawn first; a person in two parts, one behind the table; a zebra over everything.
    9: [
        (BOTTLE, [rectangle(10, 10, 13, 18)], False),
        (TABLE, [rectangle(2, 12, 30, 28)], False),
        (PERSON, [rectangle(20, 2, 24, 15), [33.5, 20.2, 38.9, 21.7, 36.1, 27.4]], False),
        (ZEBRA, [rectangle(0, 0, 40, 30)], False),
    ],
    # A crowd, one of its members drawn alone, and run lengths in both forms.
    4: [
        (PERSON, run_lengths(CROWD), True),
        (PERSON, [rectangle(28, 3, 31, 9)], False),
        (SOFA, compressed(box_mask(0, 5, 28, 8)), False),
        (TABLE, run_lengths(box_mask(3, 20, 9, 26)), False),
    ],
    # Nothing of VOC's; a crowd alone; an object without area.
    5: [(ZEBRA, [rectangle(1, 1, 9, 9)], False)],
    6: [(PERSON, run_lengths(CROWD), True)],
    7: [(PERSON, [[1, 1, 5, 5]], False), (PERSON, [rectangle(3, 3, 3, 3)], False)],
}


def test_objects_become_label_images(tmp_path: Path) -> None:
    images = LabelledImages(STORAGE, write_coco(str(tmp_path), SCENES), "train", SPACE)
    assert [Path(pair.image_uri).name for pair in images.pairs] == ["000000000004.jpg", "000000000009.jpg"]
    for index, number in enumerate((4, 9)):
        assert images.pair(index)[1].tolist() == oracle(SCENES[number]).tolist()
        assert images.pairs[index].label_uri.endswith(f"annotations/instances_train2017.json#{number}")
    ids = [SPACE.classes.index(name) for name in ("bottle", "diningtable", "person", "background")]
    nine = images.label(1)
    assert [nine[place] for place in ((14, 11), (20, 5), (3, 22), (29, 39))] == ids
    # Four pixels of a crowd member, drawn alone and in the crowd; the crowd; the sofa in front of the crowd.
    four = images.label(0)
    assert (four[5, 29], four[1, 35], four[6, 26]) == (15, 255, SPACE.classes.index("sofa"))
    assert four.flags.c_contiguous


def test_a_triangle_by_points_in_a_polygon(tmp_path: Path) -> None:
    """Compared without pycocotools, away from the edges, whose pixels may belong to either side."""
    corners = [(4.0, 3.0), (35.0, 9.0), (12.0, 27.0)]
    root = write_coco(str(tmp_path), {1: [(PERSON, [[c for corner in corners for c in corner]], False)]})
    label = LabelledImages(STORAGE, root, "train", SPACE).label(0)
    sure = 0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            distances = [
                ((x1 - x0) * (row + 0.5 - y0) - (y1 - y0) * (column + 0.5 - x0)) / np.hypot(x1 - x0, y1 - y0)
                for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)
            ]
            if min(abs(distance) for distance in distances) > 1:
                sure += 1
                assert label[row, column] == (15 if min(distances) > 0 else 0), (row, column)
    assert sure > 900


parts = st.tuples(st.integers(0, 36), st.integers(0, 26), st.integers(1, 30), st.integers(1, 30))
things = st.tuples(st.sampled_from(sorted(NAMES)), parts, st.sampled_from(["polygon", "runs", "crowd"]))


@settings(max_examples=40)
@given(st.lists(things, min_size=1, max_size=6))
def test_any_boxes_follow_the_rules(boxes: list[tuple[int, tuple[int, int, int, int], str]]) -> None:
    scene: list[Thing] = [(PERSON, [rectangle(0, 0, 2, 2)], False)]
    for category, (left, top, width, height), kind in boxes:
        right = min(left + width, WIDTH)
        bottom = min(top + height, HEIGHT)
        runs = run_lengths(box_mask(left, top, right, bottom))
        scene.append((category, [rectangle(left, top, right, bottom)] if kind == "polygon" else runs, kind == "crowd"))
    sizes = [decoded(segmentation).sum() for _, segmentation, _ in scene]
    if len(set(sizes)) < len(sizes):
        return  # Of two equally large objects, the later one is on top, unlike in the oracle.
    with tempfile.TemporaryDirectory() as folder:
        images = LabelledImages(STORAGE, write_coco(folder, {3: scene}), "train", SPACE)
        assert images.label(0).tolist() == oracle(scene).tolist()


def test_years_and_splits(tmp_path: Path) -> None:
    person = [(PERSON, [rectangle(1, 1, 9, 9)], False)]
    root = write_coco(str(tmp_path), {1: person, 2: person}, "train2014")
    write_coco(root, {3: person}, "val2014")
    assert len(LabelledImages(STORAGE, root, "train", SPACE)) == 2
    write_coco(root, {4: person}, "train2017")
    assert LabelledImages(STORAGE, root, "train", SPACE).pairs[0].image_uri.endswith("train2017/000000000004.jpg")
    assert len(LabelledImages(STORAGE, root, "val", SPACE, "coco")) == 1
    with pytest.raises(ConfigError, match=r"there is no .*instances_test2017\.json or .*test2014\.json"):
        LabelledImages(STORAGE, root, "test", SPACE)


def test_coco_in_a_bucket_is_read_once(bucket: str) -> None:
    images = LabelledImages(STORAGE, write_coco(bucket, SCENES), "train", SPACE)
    assert all(pair.version and pair.label_version for pair in images.pairs)
    STORAGE.delete(join(bucket, "annotations/instances_train2017.json"))
    assert images.pair(1)[1].tolist() == oracle(SCENES[9]).tolist()


def test_every_voc_category_has_its_name_in_coco(tmp_path: Path) -> None:
    published = (
        *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog", "horse"),
        *("sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv"),
    )
    categories = [{"id": 10 + number, "name": name} for number, name in enumerate(published)]
    scenes: dict[int, list[Thing]] = {n: [(9 + n, [rectangle(1, 1, 9, 9)], False)] for n in range(1, 21)}
    images = LabelledImages(STORAGE, write_coco(str(tmp_path), scenes, categories=categories), "train", SPACE)
    assert len(images) == 20
    shown = [SPACE.classes[images.label(index)[5, 5]] for index in range(20)]
    renamed = {"airplane": "aeroplane", "couch": "sofa", "dining table": "diningtable", "motorcycle": "motorbike"}
    renamed |= {"potted plant": "pottedplant", "tv": "tvmonitor"}
    assert shown == [renamed.get(name, name) for name in published]
    assert sorted(shown) == sorted(SPACE.classes[1:])


ONE: dict[int, list[Thing]] = {1: [(PERSON, [rectangle(1, 1, 9, 9)], False)]}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": [5, 7]}, "annotation 0 .* 12 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "01"}, "annotation 0 .*run lengths of"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, r"size \[40, 30\], in an image of 30×40"),
        ([[1, 1, 5, 5, 9]], "no image"),
        ([[1, 1, 5, 5, 9, 9, 4]], "a polygon is a list"),
        ([[1, 1, 5, 5, 9, 1e9]], "a polygon is a list"),
        ([[1, 1, 5, 5, 9, "x"]], "annotation 0 .*ValueError"),
        (None, "annotation 0 .*TypeError"),
    ],
)
def test_masks_that_make_no_sense_are_named(tmp_path: Path, segmentation: Any, message: str) -> None:
    root = write_coco(str(tmp_path), {1: [(PERSON, segmentation, False)]})
    with pytest.raises(ConfigError, match=message):
        LabelledImages(STORAGE, root, "train", SPACE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "annotation 0 is not COCO's: KeyError: 1"),
        ({"images": [{"id": 1}]}, "entry of images or categories .*file_name"),
        ({"categories": [{"id": 1, "name": "zebra"}]}, "none of the categories .*dining table"),
        ({"annotations": []}, r"train2017\.json names no image"),
        ({"annotations": [3]}, "annotation 3 is not COCO's"),
    ],
)
def test_other_files_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelledImages(STORAGE, write_coco(str(tmp_path), ONE, **changes), "train", SPACE)


def test_missing_images_broken_files_and_other_classes_are_named(tmp_path: Path) -> None:
    root = write_coco(str(tmp_path), ONE)
    with pytest.raises(ConfigError, match="layout coco gives classes that label space kitti lacks"):
        LabelledImages(STORAGE, root, "train", label_space("kitti"))
    file = Path(root, "annotations/instances_train2017.json")
    whole = file.read_bytes()
    for data, message in ((whole[:-30], "is no JSON object"), (b"[1]", "'{' should be"), (b"\xff", "no JSON object")):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            LabelledImages(STORAGE, root, "train", SPACE)
    file.write_bytes(whole)
    STORAGE.delete(join(root, "train2017/000000000001.jpg"))
    with pytest.raises(ConfigError, match=r"do not exist, first .*000000000001\.jpg"):
        LabelledImages(STORAGE, root, "train", SPACE)


def elements(content: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (key, element) for key, value in content.items() for element in (value if isinstance(value, list) else [value])
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.integers(1, 9), st.sampled_from([None, 1]))
def test_json_in_pieces_is_json(content: dict[str, Any], size: int, indent: int | None) -> None:
    text = json.dumps(content, ensure_ascii=size % 2 == 0, indent=indent)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(json_elements(pieces)) == elements(content)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"', '{"a":', '{"a":1', '{"a":[1,', '{"a":[1 2]}', '{"a" 1}', "{1:2", '{"a":[,]}', "{,}"]
)
def test_json_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        list(json_elements(iter([text])))


def test_a_file_is_read_in_ranges(bucket: str) -> None:
    content = {"a": [{"ü": n} for n in range(300)], "b": {"c": [1]}, "d": 1.5}
    uri = join(bucket, "x.json")
    STORAGE.write(uri, json.dumps(content, ensure_ascii=False).encode())
    assert list(read_json_elements(STORAGE, uri, chunk=1000)) == elements(content)


def test_memory_is_bounded_by_the_piece(tmp_path: Path) -> None:
    uri = str(tmp_path / "large.json")
    entry = json.dumps({"segmentation": [[1.25] * 60]})
    Path(uri).write_text('{"annotations": [' + ",".join([entry] * 20_000) + "]}")
    tracemalloc.start()
    count = sum(1 for _ in read_json_elements(STORAGE, uri, chunk=2**16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert Path(uri).stat().st_size > 7_000_000 and peak < 1_500_000
