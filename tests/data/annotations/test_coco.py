"""Tests of COCO JSON, against masks that pycocotools decodes, painted object by object."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.errors import ConfigError
from tests.data.annotations.support import (
    FILES,
    HEIGHT,
    WIDTH,
    coco,
    paint,
    read_classes_csv,
    read_png,
    rectangle,
    write_json,
    write_zip,
)

WHOLE = [rectangle(0, 0, WIDTH, HEIGHT)]


def compressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [*mask.shape], "counts": encoded["counts"].decode()}


def uncompressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int), prepend=0))
    counts = np.diff([0, *edges, flat.size])
    return {"size": [*mask.shape], "counts": [int(count) for count in counts]}


def decoded(segmentation: Any) -> NDArray[np.bool_]:
    """Decode with pycocotools, as its `annToMask` does."""
    if isinstance(segmentation, list):
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    else:
        encoded = segmentation
    return coco_mask.decode(encoded).astype(bool)


def naive(objects: list[tuple[int, Any]]) -> NDArray[np.uint8]:
    """Paint (value, segmentation) object by object: the largest first, ties in the order of the file."""
    masks = [(value, decoded(segmentation)) for value, segmentation in objects]
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for area in sorted({int(mask.sum()) for _, mask in masks}, reverse=True):
        for value, mask in masks:
            if mask.sum() == area:
                canvas[mask] = value
    return canvas


corners = st.tuples(st.floats(-3, WIDTH + 3), st.floats(-3, HEIGHT + 3))
polygons = st.lists(corners, min_size=3, max_size=6).map(lambda points: [float(c) for point in points for c in point])
masks = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4)
segmentations = st.one_of(st.lists(polygons, min_size=1, max_size=3), masks.map(compressed), masks.map(uncompressed))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([3, 7]), segmentations), min_size=1, max_size=5))
def test_objects_are_painted_as_pycocotools_decodes_them(objects: list[tuple[int, Any]]) -> None:
    # A full rectangle leaves no doubt that the image shows an object.
    scene = [(7, WHOLE), *objects]
    with tempfile.TemporaryDirectory() as folder:
        source = write_json(Path(folder, "x.json"), coco([(1, category, each) for category, each in scene]))
        paint(source, folder)
        expected = naive([({3: 1, 7: 2}[category], each) for category, each in scene])
        assert read_png(folder, "a").tolist() == expected.tolist()


def test_smaller_objects_lie_on_top_and_the_later_of_equal_ones(tmp_path: Path) -> None:
    small = [rectangle(2, 2, 5, 5)]
    large = [rectangle(0, 0, 9, 9)]
    objects = [(1, 3, small), (1, 7, large), (1, 3, [rectangle(10, 0, 14, 4)]), (1, 7, [rectangle(11, 0, 15, 4)])]
    paint(write_json(tmp_path / "x.json", coco(objects)), tmp_path)
    labels = read_png(tmp_path, "a")
    assert (labels[3, 3], labels[0, 0], labels[11, 15], labels[1, 10], labels[1, 12]) == (1, 2, 0, 1, 2)


def test_an_export_of_datumaro_is_painted(tmp_path: Path) -> None:
    """CVAT exports COCO with datumaro.

    The fixture is `instances_default.json` of

        items = [DatasetItem(id="a/one", subset="default", media=image, annotations=[
                     Mask(m, label=1, id=1, group=1, attributes={"is_crowd": True}),
                     Polygon([1, 1, 6, 1, 6, 5, 1, 5], label=0, id=2, group=2)]), …]
        Dataset.from_iterable(items, categories=["car", "road"], media_type=Image).export(folder, "coco_instances")

    with m[2:9, 3:11] without m[4:6, 5:7]; `two` shows a road of the whole image and a car of two parts.
    """
    data = (FILES / "datumaro_instances.json").read_bytes()
    one = np.zeros((HEIGHT, WIDTH), np.uint8)
    one[2:9, 3:11] = 2
    one[4:6, 5:7] = 0
    one[1:5, 1:6] = 1
    two = np.full((HEIGHT, WIDTH), 2, np.uint8)
    two[6:10, 8:12] = 1
    two[2:4, 2:4] = 1
    folder = tmp_path / "export"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations/instances_default.json").write_bytes(data)
    archive = write_zip(tmp_path / "export.zip", {"annotations/instances_default.json": data, "images/two.jpg": b"x"})
    for source in (folder, archive, FILES / "datumaro_instances.json"):
        output = tmp_path / f"out-{source.name}"
        painted = paint(source, output)
        assert read_png(output, "a/one").tolist() == one.tolist()
        assert read_png(output, "two").tolist() == two.tolist()
        assert (painted.images, dict(painted.left_out), painted.pairs) == (2, {"no object": 1}, None)
        assert read_classes_csv(output) == ["0,background,,,", "1,car,,,", "2,road,,,"]


def test_subsets_of_a_project_are_united_unless_they_share_a_name(tmp_path: Path) -> None:
    for subset, name in (("train", "a.jpg"), ("val", "b.jpg")):
        content = coco([(1, 3, [rectangle(1, 1, 4, 4)])], names=[name])
        write_json(tmp_path / f"in/annotations/instances_{subset}.json", content)
    assert paint(tmp_path / "in", tmp_path).images == 2
    write_json(tmp_path / "in/annotations/instances_x.json", coco([(1, 3, WHOLE)], names=["b.png"]))
    with pytest.raises(ConfigError, match=r"instances_x\.json, image b\.png and .*b\.jpg share the name b"):
        paint(tmp_path / "in", tmp_path)


def test_values_follow_category_ids_and_colors_are_kept_if_distinct(tmp_path: Path) -> None:
    categories = [
        {"id": 9, "name": "pole", "color": [1, 2, 3]},
        {"id": 2, "name": "sky", "color": [9, 9, 9]},
        {"id": 4, "name": "background"},
        {"id": 5, "name": "tree", "color": [9, 9, 9]},
        {"id": 11, "name": "ignore"},
        {"id": 12, "name": "sky"},
    ]
    objects = [(1, 9, WHOLE), (1, 4, [rectangle(0, 0, 9, 9)]), (1, 11, [rectangle(0, 0, 2, 2)])]
    objects.append((1, 12, [rectangle(4, 4, 6, 6)]))
    painted = paint(write_json(tmp_path / "x.json", coco(objects, categories)), tmp_path)
    assert read_classes_csv(tmp_path) == ["0,background,,,", "1,sky,,,", "2,tree,,,", "3,pole,1,2,3", "255,ignore,,,"]
    labels = read_png(tmp_path, "a")
    assert [labels[11, 15], labels[8, 8], labels[0, 0], labels[5, 5]] == [3, 0, 255, 1]
    assert painted.void == 4 and painted.pixels == {"tree": 0, "sky": 4, "background": 73, "pole": 111}
    assert list(painted.pixels) == ["tree", "sky", "background", "pole"]


def test_objects_without_an_area_and_images_without_objects_are_counted(tmp_path: Path) -> None:
    content = coco([(1, 3, [rectangle(1, 1, 4, 4)]), (2, 3, []), (1, 3, [[1, 1, 2, 2]])], names=["a.jpg", "b.jpg"])
    painted = paint(write_json(tmp_path / "x.json", content), tmp_path)
    assert dict(painted.left_out) == {"no object": 1} and sum(painted.skipped.values()) == 2


def changed(part: str, **values: Any) -> dict[str, Any]:
    content = coco([(1, 3, [rectangle(1, 1, 4, 4)])])
    content[part][0] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "lists no images: COCO JSON has images, annotations and categories"),
        (coco([]), "no image to paint .1 images: no object"),
        (coco([(1, 3, WHOLE)], []), "lists no categories"),
        (coco([(2, 3, WHOLE)]), "annotation 1: image_id 2"),
        (coco([(1, 4, WHOLE)]), "annotation 1: .*category_id 4"),
        (changed("images", file_name="../a.jpg"), r"entry 1 of images: the file name '\.\./a\.jpg'"),
        (changed("images", file_name="/a.jpg"), "file name '/a.jpg'"),
        (changed("images", file_name="x/../../a.jpg"), "file name"),
        (changed("images", file_name="C:/a.jpg"), "file name"),
        (changed("images", file_name="x\\a.jpg"), "file name"),
        (changed("images", file_name="a\0.jpg"), "file name"),
        (changed("images", file_name="\ud800.jpg"), "file name"),
        (changed("images", file_name="a" * 300), "file name"),
        (changed("images", file_name=""), "file name"),
        (changed("images", file_name=7), "file_name is 7, must be of type str"),
        (changed("images", id=None), "id is missing"),
        (changed("images", id=[1]), "id is"),
        (changed("images", height=0), "height 0"),
        (changed("images", height=1e30), "no size"),
        (changed("images", width=float("inf")), "no size"),
        (changed("images", width=float("nan")), "no size"),
        (changed("images", width=10**9), "no size"),
        (changed("images", width=3.5), "no size"),
        (changed("images", width=True), "width is True"),
        (changed("categories", id="3"), "entry '3' of categories: id is '3', must be of type int"),
        (changed("categories", name=None), "name is missing"),
        (changed("categories", name=" "), "class name"),
        (changed("categories", name="x" * 101), "class name"),
        (changed("categories", name="a\nb"), "class name"),
        (changed("annotations", segmentation=None), "annotation 1: counts is missing"),
        (changed("annotations", segmentation=[[1, 1, 5, 5, 9, "x"]]), "annotation 1"),
        (changed("annotations", segmentation=[[1, 1, 5, 5, 9, 1e9]]), "annotation 1"),
        (changed("annotations", segmentation=[[1, 1, 5, 5, 9, 10**400]]), "annotation 1"),
        (changed("annotations", segmentation=[[1, 1, 5, 5, 9, float("nan")]]), "annotation 1"),
        (changed("annotations", segmentation=[1, 1, 5, 5, 9, 9]), "annotation 1"),
        (changed("annotations", segmentation=[{"a": 1}] * 3), "annotation 1|no image to paint"),
        (changed("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 7]}), "annotation 1"),
        (changed("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": [0.5] * 384}), "whole numbers"),
        (changed("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": "01"}), "annotation 1"),
        (changed("annotations", segmentation={"size": [HEIGHT, WIDTH], "counts": "\ud800é"}), "annotation 1"),
        (changed("annotations", segmentation={"size": 3, "counts": [HEIGHT * WIDTH]}), "annotation 1"),
        (changed("annotations", segmentation={"counts": [HEIGHT * WIDTH]}), "annotation 1"),
        (coco([(1, 3, WHOLE)]) | {"annotations": [3, None]}, "annotation 3"),
        (coco([(1, 3, WHOLE)]) | {"images": 3}, "entry 3 of images"),
        (coco([(1, 3, WHOLE)], names=["a.jpg", "a.png"]) | {"annotations": [
            {"image_id": 1, "category_id": 3, "segmentation": WHOLE},
            {"image_id": 2, "category_id": 3, "segmentation": WHOLE}]}, "share the name a"),
        (coco([(1, 1, WHOLE)], [{"id": n, "name": f"c{n}"} for n in range(255)]), "255 classes, must be at most 254"),
        (coco([(1, 1, WHOLE)], [{"id": 1, "name": "only"}]), r"shows only the classes \['only'\]"),
    ],
)  # fmt: skip
def test_what_is_no_coco_is_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    source = write_json(tmp_path / "broken.json", content)
    with pytest.raises(ConfigError, match=message) as refusal:
        paint(source, tmp_path)
    assert "broken.json" in str(refusal.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
places = st.sampled_from(
    [
        *(("images", key) for key in ("id", "file_name", "height", "width")),
        *(("annotations", key) for key in ("id", "image_id", "category_id", "segmentation")),
        *(("categories", key) for key in ("id", "name", "color")),
        ("images", None),
        ("annotations", None),
        ("categories", None),
    ]
)


@settings(max_examples=150)
@given(places, json_values)
def test_any_wrong_value_is_refused_or_harmless(place: tuple[str, str | None], value: Any) -> None:
    part, key = place
    content = coco([(1, 3, [rectangle(1, 1, 4, 4)])])
    if key is None:
        content[part][0] = value
    else:
        content[part][0][key] = value
    with tempfile.TemporaryDirectory() as folder:
        try:
            paint(write_json(Path(folder, "x.json"), content), folder)
        except ConfigError as error:
            assert "x.json" in str(error)
