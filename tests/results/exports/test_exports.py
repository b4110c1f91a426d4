"""Tests of exports: each format is read back by its own tool, or by a reader written from its definition."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio.features
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO

from jobs.export import main
from pipeline.errors import ConfigError, IncompleteRun
from pipeline.results.exports.cvat import _lengths
from pipeline.results.exports.export import Request, export_run
from pipeline.results.exports.geojson import polygons
from pipeline.results.exports.label_studio import brush_rle
from pipeline.results.exports.masks import Order, chosen_classes, chosen_masks
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from tests.results.run_builders import CLASSES, PALETTE, entropy, write_run
from tests.shared import STORAGE

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 2))
)
bigger = arrays(np.uint8, (24, 30), elements=st.sampled_from([0, 1])).map(lambda cells: cells.repeat(2, 0).repeat(2, 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("exported"), 7, failed=(2, 5)))


def export(run: Run, folder: Path, to: str, *options: str) -> Path:
    assert main([run.output, "--to", to, "--output", str(folder), *options]) == 0
    return folder


def bits_of(data: list[int]) -> Iterator[str]:
    return iter("".join(f"{byte:08b}" for byte in data))


def brush_decoded(data: list[int]) -> np.ndarray:
    """Decode Label Studio's format by its definition, literal runs included."""
    bits = bits_of(data)

    def take(count: int) -> int:
        return int("".join(next(bits) for _ in range(count)), 2)

    total = take(32)
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    return np.array(values, np.uint8)


def test_index_files_are_the_masks(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path, "index-png")
    expected = {Path(uri).stem: mask for uri, mask in run.masks()}
    assert {path.stem for path in folder.iterdir()} == set(expected) and len(expected) == 5
    for name, mask in expected.items():
        with Image.open(folder / f"{name}.png") as image:
            assert image.mode == "P" and np.array_equal(np.asarray(image), mask)


def test_colour_files_are_in_the_classes_colours(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path, "color-png", "--classes", "road,car")
    for uri, mask in run.masks():
        expected = np.zeros((*mask.shape, 3), np.uint8)
        for name in ("road", "car"):
            expected[mask == CLASSES.index(name)] = PALETTE[CLASSES.index(name)]
        assert np.array_equal(np.asarray(Image.open(folder / f"{Path(uri).stem}.png")), expected)


def test_coco_reads_its_annotations(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, "coco")
    coco = COCO(str(tmp_path / "annotations.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    files = {image["file_name"]: image["id"] for image in coco.loadImgs(coco.getImgIds())}
    assert set(files) == {uri for uri, _ in run.masks()}
    for uri, mask in run.masks():
        rebuilt = np.full(mask.shape, 255, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[files[uri]])):
            region = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == region.sum()
            left, top, width, height = (int(value) for value in annotation["bbox"])
            assert region[top : top + height, left : left + width].sum() == region.sum()
            rebuilt[region] = annotation["category_id"] - 1
        assert np.array_equal(rebuilt, mask)


def test_polygons_cover_the_regions(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, "geojson")
    for uri, mask in run.masks():
        collection = json.loads((tmp_path / f"{Path(uri).stem}.geojson").read_text())
        assert collection["image_uri"] == uri and (collection["height"], collection["width"]) == mask.shape
        shapes = [(feature["geometry"], feature["properties"]["class_id"]) for feature in collection["features"]]
        assert all(shapely.geometry.shape(geometry).is_valid for geometry, _ in shapes)
        assert np.array_equal(rasterio.features.rasterize(shapes, mask.shape, fill=255, dtype=np.uint8), mask)


@settings(max_examples=150)
@given(masks)
def test_polygons_of_any_mask_are_valid_with_their_holes(mask: np.ndarray) -> None:
    found = list(polygons(mask, range(3)))
    assert all(polygon.is_valid for _, polygon in found)
    for class_id in range(3):
        area = sum(polygon.area for each, polygon in found if each == class_id)
        assert area == (mask == class_id).sum()
    shapes = [(shapely.geometry.mapping(polygon), class_id) for class_id, polygon in found]
    assert np.array_equal(rasterio.features.rasterize(shapes, mask.shape, fill=9, dtype=np.uint8), mask)


@settings(max_examples=20)
@given(bigger, st.sampled_from([0.5, 1.5, 3.0]))
def test_simplified_outlines_move_no_further_than_the_tolerance(mask: np.ndarray, tolerance: float) -> None:
    exact = [polygon for _, polygon in polygons(mask, [1])]
    simplified = [polygon for _, polygon in polygons(mask, [1], tolerance)]
    assert all(polygon.is_valid for polygon in simplified)
    if exact:
        outline = shapely.union_all([polygon.boundary for polygon in exact])
        moved = shapely.union_all([polygon.boundary for polygon in simplified])
        assert shapely.hausdorff_distance(moved, outline) <= tolerance + 1e-9
        points = [sum(shapely.get_num_coordinates(polygon) for polygon in each) for each in (exact, simplified)]
        assert points[1] <= points[0]


@given(masks)
def test_brushes_are_what_label_studio_reads(mask: np.ndarray) -> None:
    decoded = brush_decoded(brush_rle(mask == 1)).reshape(*mask.shape, 4)
    assert np.array_equal(decoded, np.repeat(255 * (mask == 1)[:, :, None], 4, axis=2))


def test_long_runs_are_cut() -> None:
    region = np.ones((300, 300), bool)
    assert brush_decoded(brush_rle(region)).sum() == 255 * 4 * region.size


def test_tasks_are_the_most_uncertain_images_first(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, "label-studio", "--images", "3")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    indices = [int(Path(task["data"]["image"]).stem) for task in tasks]
    assert indices == sorted((0, 1, 3, 4, 6), key=entropy, reverse=True)[:3]
    stored = dict(run.masks())
    for task in tasks:
        mask = stored[task["data"]["image"]]
        for result in task["predictions"][0]["result"]:
            (name,) = result["value"]["brushlabels"]
            region = brush_decoded(result["value"]["rle"]).reshape(*mask.shape, 4)[:, :, 0]
            assert (result["original_height"], result["original_width"]) == mask.shape
            assert np.array_equal(region > 0, mask == CLASSES.index(name))
    view = ElementTree.parse(tmp_path / "labelling.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == list(CLASSES)


def test_cvat_masks_lie_where_they_should(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, "cvat", "--order", "worst", "--images", "2")
    images = list(ElementTree.parse(tmp_path / "annotations.xml").getroot().iter("image"))
    scores = run.predictions().dropna(subset="mean_iou").sort_values("mean_iou")
    assert [image.get("name") for image in images] == [Path(uri).name for uri in scores["image_uri"][:2]]
    stored = {Path(uri).name: mask for uri, mask in run.masks()}
    for image in images:
        mask = stored[image.get("name", "")]
        rebuilt = np.full(mask.shape, 255, np.uint8)
        for each in image.iter("mask"):
            left, top, width, height = (int(each.get(name, "")) for name in ("left", "top", "width", "height"))
            lengths = [int(length) for length in each.get("rle", "").split(", ")]
            region = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(height, width).astype(bool)
            rebuilt[top : top + height, left : left + width][region] = CLASSES.index(each.get("label", ""))
        assert np.array_equal(rebuilt, mask)


@given(masks)
def test_cvat_runs_begin_outside(mask: np.ndarray) -> None:
    lengths = _lengths(mask == 1)
    rebuilt = np.repeat(np.arange(len(lengths)) % 2, lengths)
    assert np.array_equal(rebuilt.reshape(mask.shape), mask == 1)


def test_names_follow_the_folders_and_are_never_shared(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, 3, failed=()))
    assert [each.name for each in chosen_masks(run)] == ["0000", "0001", "0002"]
    (tmp_path / "in" / "0000.png").rename(tmp_path / "in" / "0001.jpg")
    _rename(run, {"in/0000.png": "in/a/1.jpg", "in/0001.png": "in/a/1.png", "in/0002.png": "in/b/1.png"})
    with pytest.raises(ConfigError, match=r"a/1.jpg and .*a/1.png would both be exported as 'a/1'"):
        list(chosen_masks(run))
    _rename(run, {"in/a/1.png": "in/a/2.png"})
    assert [each.name for each in chosen_masks(run)] == ["a/1", "a/2", "b/1"]


@pytest.mark.parametrize("order", ["manifest", "uncertain"])
def test_an_empty_folder_name_gives_no_second_name(tmp_path: Path, order: Order) -> None:
    """Limit: other images are between the two in the manifest."""
    run = Run(write_run(tmp_path, 3, failed=()))
    _rename(run, {"in/0000.png": "in/a//1.png", "in/0001.png": "in/a//2.png", "in/0002.png": "in/a/1.png"})
    with pytest.raises(ConfigError, match=r"in/a/*1.png and .*in/a/*1.png would both be exported as 'a?/?1'"):
        list(chosen_masks(run, order=order))


def _rename(run: Run, names: dict[str, str]) -> None:
    """Replace the URIs in manifest and predictions."""
    for folder in ("manifest", "predictions"):
        for path in sorted(Path(run.output, folder).glob("*.parquet")):
            table = pq.read_table(path)
            uris = table["image_uri"].to_pylist()
            for old, new in names.items():
                uris = [uri.replace(old, new) for uri in uris]
            at = table.schema.get_field_index("image_uri")
            pq.write_table(table.set_column(at, table.schema.field(at), pa.array(uris)), path)


def test_files_are_replaced_and_the_run_stays_sound(run: Run, tmp_path: Path) -> None:
    folder = Path(run.output, "export")
    first = {path: path.read_bytes() for path in export(run, folder, "coco").iterdir()}
    assert {path: path.read_bytes() for path in export(run, folder, "coco").iterdir()} == first
    assert verify(run.output).ok


def test_a_bucket_gets_whole_files(run: Run, bucket: str) -> None:
    for to in ("coco", "index-png"):
        assert main([run.output, "--to", to, "--output", f"{bucket}/{to}"]) == 0
    assert len(json.loads(STORAGE.read(f"{bucket}/coco/annotations.json"))["images"]) == 5
    assert len(STORAGE.list(f"{bucket}/index-png")) == 5


def test_without_the_libraries_of_polygons_it_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert main([run.output, "--to", "geojson", "--output", str(tmp_path)]) == 2
    assert "pip install 'dilated-context[exports]'" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "predictions", "image_scores/deep"])
def test_an_export_never_lands_among_the_tables(run: Run, place: str) -> None:
    with pytest.raises(ConfigError, match="own tables"):
        export_run(run.output, Request("index-png", f"{run.output}/{place}"))


@pytest.mark.parametrize(
    "options", [["--images", "0"], ["--tolerance", "-1"], ["--to", "jpeg"], ["--to", "coco", "--tolerance", "1"]]
)
def test_wrong_options_exit_2(run: Run, tmp_path: Path, options: list[str]) -> None:
    assert main([run.output, "--to", "geojson", "--output", str(tmp_path), *options]) == 2


def test_what_makes_no_sense_is_said(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [run.output, "--to", "coco", "--output", str(tmp_path / "x")]
    assert main([*arguments, "--classes", "road,house"]) == 2
    assert "'house', which is not a class of the run: choose from sky" in capsys.readouterr().err
    unlabelled = write_run(tmp_path, 3, labels=False)
    assert main([unlabelled, *arguments[1:], "--order", "worst"]) == 2
    assert "no labels" in capsys.readouterr().err
    assert main([str(tmp_path / "gone"), *arguments[1:]]) == 3
    with pytest.raises(IncompleteRun):
        export_run(str(tmp_path / "gone"), Request("coco", str(tmp_path)))


def test_an_empty_run_gives_empty_files(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, 0))
    export(run, tmp_path / "coco", "coco")
    assert COCO(str(tmp_path / "coco/annotations.json")).getImgIds() == []
    export(run, tmp_path / "tasks", "label-studio")
    assert json.loads((tmp_path / "tasks/tasks.json").read_text()) == []
    export(run, tmp_path / "cvat", "cvat")
    assert ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot().find("image") is None
    assert chosen_classes(run, None).chosen == tuple(range(len(CLASSES)))


def test_masks_of_a_million_shards_come_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    """Limit: names of parts as text sort in another order than the manifest."""
    many = Run(write_run(tmp_path, name="many", first_shard=999_999))
    few = Run(write_run(tmp_path, name="few"))
    found = [(each.name, each.png) for each in chosen_masks(many)]
    assert found == [(each.name, each.png) for each in chosen_masks(few)] != []
