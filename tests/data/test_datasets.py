"""Tests of data set layouts on small copies of published ones: pairs, ids, recognition, and error messages."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from model.files.checkpoint import to_bytes
from pipeline.data.datasets.registry import LAYOUTS
from pipeline.data.datasets.road_scenes import CAMVID_32
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import decode_label
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, StorageError
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.segmentation.config import SegmentConfig, labels_of
from pipeline.training.preparation.division import Division
from pipeline.training.samples.dataset import DataSet, LabelledImages, read_split
from tests.segmentation.support import narrow_network, png, run_here
from tests.shared import STORAGE

SHAPE = (4, 6)
STREET = label_space("street_scenes")


def image(seed: int) -> np.ndarray:
    """Return noise, (4, 6, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def ids(seed: int, classes: int = 11) -> np.ndarray:
    """Return random ids, (4, 6)."""
    return np.random.default_rng(1000 + seed).integers(0, classes, SHAPE, dtype=np.uint8)


def write(root: str, files: dict[str, np.ndarray | str | bytes]) -> str:
    """Write pictures and texts below `root`."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        STORAGE.write(join(root, name), png(data) if isinstance(data, np.ndarray) else data)
    return root


def folders(root: str) -> str:
    """Write two pairs for training and one for validation."""
    for split, seeds in (("train", (1, 0)), ("val", (2,))):
        for seed in seeds:
            write(root, {f"{split}/images/{seed}.png": image(seed), f"{split}/labels/{seed}.png": ids(seed)})
    return root


def segnet(root: str) -> str:
    """Write the SegNet tutorial's CamVid, in which 11 is void."""
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        lines = [f"/SegNet/CamVid/{split}/{seed}.png /SegNet/CamVid/{split}annot/{seed}.png\n" for seed in seeds]
        write(root, {f"CamVid/{split}.txt": "".join(lines)})
        for seed in (*seeds, 9):
            write(root, {f"CamVid/{split}/{seed}.png": image(seed), f"CamVid/{split}annot/{seed}.png": ids(seed, 12)})
    return root


def camvid(root: str) -> str:
    """Write CamVid's original release, and lists in three common forms."""
    colours = np.array(CAMVID_32.palette, np.uint8)
    for seed in range(3):
        label = colours[ids(seed, 32)]
        write(root, {f"701_StillsRaw_full/f{seed}.png": image(seed), f"LabeledApproved_full/f{seed}_L.png": label})
    return write(root, {"train.txt": "f0\nelsewhere/f1.png\n", "val.txt": "f2_L.png"})


def kitti(root: str) -> str:
    """Write KITTI as labeled by Ros et al. 2015, in which black is void."""
    colours = np.array([*label_space("kitti").palette, (0, 0, 0)], np.uint8)
    for folder, seeds in (("Training_00", (0, 1)), ("Validation_07", (2,))):
        for seed in seeds:
            place = f"KITTI_SEMANTIC/{folder}"
            write(
                root, {f"{place}/RGB/{seed:06d}.png": image(seed), f"{place}/GT/{seed:06d}.png": colours[ids(seed, 12)]}
            )
    return root


def cityscapes(root: str) -> str:
    """Write two cities, the second with train ids alone."""
    for split, city, name, seed in (("train", "ulm", "a", 0), ("train", "zurich", "b", 1), ("val", "munster", "c", 2)):
        stem = f"gtFine/{split}/{city}/{city}_{name}_gtFine"
        write(
            root,
            {f"leftImg8bit/{split}/{city}/{city}_{name}_leftImg8bit.png": image(seed), f"{stem}_color.png": image(9)},
        )
        if city == "zurich":
            write(root, {f"{stem}_labelTrainIds.png": ids(seed, 19)})
        else:
            write(root, {f"{stem}_labelIds.png": ids(seed, 34), f"{stem}_labelTrainIds.png": np.zeros(SHAPE, np.uint8)})
    return root


def lists(root: str) -> str:
    """Write the reference code's lists: relative, absolute and URI."""
    elsewhere = join(root, "..", "elsewhere") if "://" not in root else f"{root}-elsewhere"
    elsewhere = str(Path(elsewhere).resolve()) if "://" not in root else elsewhere
    write(elsewhere, {"1.png": image(1), "1_ids.png": ids(1)})
    write(root, {"deep/0.png": image(0), "deep/0_ids.png": ids(0), "2.png": image(2), "2_ids.png": ids(2)})
    uri = elsewhere if "://" in elsewhere else f"file://{elsewhere}"
    write(root, {"train_image.txt": f"{elsewhere}/1.png\n\ndeep/0.png\n", "val_image.txt": "./2.png"})
    return write(root, {"train_label.txt": f"{uri}/1_ids.png\ndeep/0_ids.png\n", "val_label.txt": "2_ids.png\n"})


def manifest(root: str) -> str:
    """Write a Parquet file for one split, and a CSV file for the other."""
    for seed in range(3):
        write(root, {f"x/{seed}.png": image(seed), f"y/{seed}.png": ids(seed)})
    rows = [{"image_uri": f"x/{seed}.png", "label_uri": join(root, f"y/{seed}.png")} for seed in (1, 0)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return write(root, {"train.parquet": sink.getvalue(), "val.csv": "label_uri,image_uri\ny/2.png,x/2.png\n"})


def by_name(layout: str, seed: int) -> np.ndarray:
    """Return class names of a pair's label by the publication's own rules; None is void."""
    street = STREET.classes
    kitti_names = label_space("kitti").classes
    names = label_space("camvid_segnet").classes
    if layout == "segnet":
        return np.array([*names, None], object)[ids(seed, 12)]
    if layout == "kitti":
        return np.array([*kitti_names, None], object)[ids(seed, 12)]
    if layout == "camvid":
        return np.array([MERGED.get(name) for name in CAMVID_32.classes], object)[ids(seed, 32)]
    if layout == "cityscapes":
        trained = np.array([*label_space("cityscapes").classes], object)
        return (
            trained[ids(seed, 19)]
            if seed == 1
            else np.array([LABEL_IDS.get(n) for n in range(34)], object)[ids(seed, 34)]
        )
    return np.array(street, object)[ids(seed)]


GROUPS = {
    "sky": "Sky", "building": "Archway Bridge Building Tunnel Wall", "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv", "sidewalk": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc", "sign": "SignSymbol Misc_Text TrafficLight", "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving", "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}  # fmt: skip
MERGED = {published: name for name, group in GROUPS.items() for published in group.split()}
LABEL_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip

# By name: the function that writes a data set, the layout that reads it, and a label space.
CASES: dict[str, tuple[Callable[[str], str], str, str]] = {
    "folders": (folders, "folders", "street_scenes"),
    "segnet": (segnet, "camvid", "camvid_segnet"),
    "camvid": (camvid, "camvid", "camvid"),
    "kitti": (kitti, "kitti", "kitti"),
    "cityscapes": (cityscapes, "cityscapes", "cityscapes"),
    "lists": (lists, "lists", "street_scenes"),
    "manifest": (manifest, "manifest", "street_scenes"),
}


def check(case: str, root: str, layout: str = "auto") -> None:
    """Assert that both splits hold the pairs that were written, with the labels that were written."""
    space = label_space(CASES[case][2])
    names = np.array([*space.classes, *[None] * (256 - len(space.classes))], object)
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        images = LabelledImages(STORAGE, root, split, space, layout)
        assert len(images) == len(seeds)
        assert [pair.image_uri for pair in images.pairs] == sorted(pair.image_uri for pair in images.pairs)
        assert all(pair.version and pair.label_version for pair in images.pairs)
        found = [images.pair(index) for index in range(len(images))]
        for seed in seeds:
            label = next(label for pixels, label in found if (pixels == image(seed)).all())
            assert label.dtype == np.uint8 and label.flags.c_contiguous
            assert names[label].tolist() == by_name(case, seed).tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_layout_is_recognised_and_read(case: str, tmp_path: Path) -> None:
    root = CASES[case][0](str(tmp_path / "data"))
    check(case, root)
    check(case, root, CASES[case][1])


@pytest.mark.parametrize("case", CASES)
def test_layouts_in_a_bucket(case: str, bucket: str) -> None:
    check(case, CASES[case][0](join(bucket, "data")) + "/")


def test_classes_are_translated_by_name(tmp_path: Path) -> None:
    root = segnet(str(tmp_path))
    paper = label_space("camvid")
    tutorial = label_space("camvid_segnet")
    ours, theirs = (LabelledImages(STORAGE, root, "train", space) for space in (paper, tutorial))
    void = theirs.label(0) == 255
    assert ((ours.label(0) == 255) == void).all() and 0 < void.sum() < void.size
    named = np.array(tutorial.classes)[theirs.label(0)[~void]]
    assert np.array(paper.classes)[ours.label(0)[~void]].tolist() == named.tolist()


def test_every_published_colour_of_camvid(tmp_path: Path) -> None:
    root = camvid(str(tmp_path))
    space = label_space("camvid_segnet")
    write(root, {"LabeledApproved_full/f2_L.png": np.array([CAMVID_32.palette, [(1, 2, 3)] * 32], np.uint8)})
    label = LabelledImages(STORAGE, root, "val", space).label(0)
    assert len(set(CAMVID_32.palette)) == 32 and len(MERGED) == 31
    assert label[0].tolist() == [space.classes.index(MERGED[n]) if n in MERGED else 255 for n in CAMVID_32.classes]
    assert (label[1] == 255).all(), "colours that were not published are void"


@pytest.mark.parametrize("trained", ["camvid", "camvid_segnet"])
@pytest.mark.parametrize("scored", ["camvid", "camvid_segnet"])
def test_camvid_is_scored_as_it_is_trained(tmp_path: Path, trained: str, scored: str) -> None:
    """Labels in all 32 colors and in index files, for networks with the classes in both orders."""
    root = camvid(str(tmp_path))
    space = label_space(trained)
    network = narrow_network(classes=space.classes)
    network.spec = replace(network.spec, palette=space.palette)
    STORAGE.write(join(root, "network.safetensors"), to_bytes(network))
    config = SegmentConfig(
        images=join(root, "701_StillsRaw_full"),
        labels=join(root, "LabeledApproved_full"),
        checkpoint=join(root, "network.safetensors"),
        output=join(root, "out"),
        label_space=scored,
    )
    run_here(config)
    train, val = (LabelledImages(STORAGE, root, split, space) for split in ("train", "val"))
    labels = [train.label(0), train.label(1), val.label(0)]
    counts = [
        [entry["target_pixels"] for entry in row["classes"]]
        for row in Run(config.output).predictions(["classes"]).to_dict("records")
    ]
    assert counts == [np.bincount(label[label < 11], minlength=11).tolist() for label in labels]
    assert verify(config.output).ok
    values = np.array([[*range(11), 255]], np.uint8)
    names = np.array([*label_space(scored).classes, None], object)
    by_value = decode_label(png(values), 11, 255, labels_of(config, network.spec))
    assert np.array([*space.classes, *[None] * 245], object)[by_value[0]].tolist() == names.tolist()
    assert labels_of(config, network.spec).file_values() == tuple(names.tolist().index(name) for name in space.classes)


@pytest.mark.parametrize("layout", ["camvid", "kitti", "cityscapes"])
def test_a_label_space_without_the_classes_is_refused(tmp_path: Path, layout: str) -> None:
    root = CASES[layout][0](str(tmp_path))
    with pytest.raises(ConfigError, match=f"layout {layout} gives classes that label space voc lacks.*--label-space"):
        LabelledImages(STORAGE, root, "train", label_space("voc"))


@pytest.mark.parametrize("layout", ["auto", *LAYOUTS])
def test_a_folder_that_does_not_fit_says_what_was_looked_for(tmp_path: Path, layout: str) -> None:
    write(str(tmp_path), {"notes.md": "nothing here", "images/0.png": image(0)})
    with pytest.raises(ConfigError, match=r"holds images, notes\.md\. Looked for, and did not find: ") as raised:
        LabelledImages(STORAGE, str(tmp_path), "train", STREET, layout)
    named = [name for name in LAYOUTS if f"({name})" in str(raised.value)]
    assert named == (list(LAYOUTS) if layout == "auto" else [layout])


def test_unknown_empty_and_ambiguous(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(ConfigError, match="unknown layout 'vok': choose one of auto, folders, voc"):
        LabelledImages(STORAGE, str(tmp_path), "train", STREET, "vok")
    for empty in (str(tmp_path / "no such folder"), join(bucket, "nothing")):
        with pytest.raises(ConfigError, match="holds nothing"):
            LabelledImages(STORAGE, empty, "train", STREET)
    with pytest.raises(StorageError, match="bucket does not exist"):
        LabelledImages(STORAGE, "s3://no-such-bucket-here/data", "train", STREET)
    root = manifest(folders(str(tmp_path / "both")))
    with pytest.raises(ConfigError, match="can be read as folders or manifest: choose with --layout"):
        LabelledImages(STORAGE, root, "train", STREET)
    assert len(LabelledImages(STORAGE, root, "train", STREET, "manifest")) == 2


@pytest.mark.parametrize(
    ("case", "files", "message"),
    [
        ("segnet", {"CamVid/train.txt": "/x/train/77.png /x/trainannot/77.png"}, r"2 files .*first .*train/77\.png"),
        ("segnet", {"CamVid/train.txt": "\n"}, r"train\.txt names no image"),
        ("camvid", {"train.txt": "f0\nf0\n"}, r"names 1 images twice, first .*f0\.png"),
        ("camvid", {"train.txt": b"\xff\xfe"}, r"train\.txt is no text in UTF-8"),
        ("kitti", {"KITTI_SEMANTIC/Training_00/RGB/000008.png": image(8)}, r"first .*GT/000008\.png"),
        ("cityscapes", {"leftImg8bit/train/ulm/ulm_z_leftImg8bit.png": image(8)}, r"first .*ulm_z_gtFine_labelIds"),
        ("lists", {"train_label.txt": "a.png"}, r"has 2 lines, train_label\.txt beside it 1"),
        ("lists", {"train_image.txt": "a.png\nb.png"}, r"2 files .*do not exist, first .*a\.png"),
        ("manifest", {"train.parquet": b"PAR1"}, r"no table with columns image_uri and label_uri"),
        ("manifest", {"train.jsonl": "{}"}, r"holds train\.parquet, train\.jsonl: give one of"),
    ],
)  # fmt: skip
def test_incomplete_data_sets_are_named(
    tmp_path: Path, case: str, files: dict[str, np.ndarray | str | bytes], message: str
) -> None:
    root = write(CASES[case][0](str(tmp_path)), files)
    with pytest.raises(ConfigError, match=message):
        LabelledImages(STORAGE, root, "train", label_space(CASES[case][2]))


@pytest.mark.parametrize("case", ["segnet", "camvid", "kitti", "cityscapes", "lists", "manifest"])
def test_a_split_that_is_not_there_is_named(tmp_path: Path, case: str) -> None:
    root = CASES[case][0](str(tmp_path))
    with pytest.raises(ConfigError, match="nonsense"):
        LabelledImages(STORAGE, root, "nonsense", label_space(CASES[case][2]))


def test_manifests_as_lines_of_json_and_rows_without_a_label(tmp_path: Path) -> None:
    root = folders(str(tmp_path))
    pairs = [{"image_uri": f"train/images/{n}.png", "label_uri": f"train/labels/{n}.png"} for n in (0, 1)]
    write(root, {"train.jsonl": "".join(json.dumps(pair) + "\n" for pair in pairs)})
    ours = LabelledImages(STORAGE, root, "train", STREET, "manifest")
    assert ours.digest() == LabelledImages(STORAGE, root, "train", STREET, "folders").digest()
    sink = io.StringIO()
    csv.writer(sink).writerows([["image_uri", "label_uri"], ["0001", ""]])
    write(root, {"val.csv": sink.getvalue()})
    with pytest.raises(ConfigError, match=r"row 0 of .*val\.csv lacks its .*'0001'"):
        LabelledImages(STORAGE, root, "val", STREET, "manifest")


def test_the_digest_follows_images_labels_and_their_content(bucket: str) -> None:
    root = folders(bucket)
    digests = [LabelledImages(STORAGE, root, "train", STREET).digest() for _ in range(2)]
    for name in ("images", "labels"):
        write(root, {f"train/{name}/0.png": image(77) if name == "images" else ids(77)})
        digests.append(LabelledImages(STORAGE, root, "train", STREET).digest())
    write(root, {"train/images/8.png": image(8), "train/labels/8.png": ids(8)})
    digests.append(LabelledImages(STORAGE, root, "train", STREET).digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_damage_and_another_size_are_named(tmp_path: Path) -> None:
    root = folders(str(tmp_path))
    write(root, {"train/images/0.png": b"no picture", "train/labels/1.png": np.zeros((2, 2), np.uint8)})
    images = LabelledImages(STORAGE, root, "train", STREET)
    with pytest.raises(ConfigError, match=r"images/0\.png cannot be trained on: "):
        images.image(0)
    with pytest.raises(ConfigError, match=r"labels/1\.png has 2×2 pixels .*its image 4×6"):
        images.pair(1)
    STORAGE.delete(join(root, "train/labels/0.png"))
    with pytest.raises(ConfigError, match=r"labels/0\.png cannot be trained on: .*no such object"):
        images.label(0)


class Counting(Storage):
    """Storage that counts requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []

    def call(self, action, uri, request):  # type: ignore[no-untyped-def]
        self.requests.append(f"{action} {uri}")
        return super().call(action, uri, request)


@pytest.mark.parametrize("layout", ["folders", "lists", "manifest"])
def test_requests_do_not_grow_with_the_images(tmp_path: Path, layout: str) -> None:
    counts = []
    for many in (20, 60):
        root = str(tmp_path / str(many))
        for n in range(many):
            write(root, {f"train/images/{n}.png": image(0), f"train/labels/{n}.png": ids(0)})
        paths = [[f"train/{kind}/{n}.png" for n in range(many)] for kind in ("images", "labels")]
        write(root, {"train_image.txt": "\n".join(paths[0]), "train_label.txt": "\n".join(paths[1])})
        rows = [",".join(pair) for pair in zip(*paths, strict=True)]
        write(root, {"train.csv": "\n".join(["image_uri,label_uri", *rows])})
        storage = Counting()
        assert len(LabelledImages(storage, root, "train", STREET, layout)) == many
        counts.append(len(storage.requests))
    assert counts[0] == counts[1] <= 6


def test_palette_labels_keep_their_indices(tmp_path: Path) -> None:
    root = folders(str(tmp_path))
    label = Image.fromarray(ids(0), mode="P")
    label.putpalette([200, 100, 50] * 256)
    sink = io.BytesIO()
    label.save(sink, "PNG")
    write(root, {"train/labels/0.png": sink.getvalue()})
    assert LabelledImages(STORAGE, root, "train", STREET).label(0).tolist() == ids(0).tolist()


OWN_FORMS = (
    ("{split}/imgs/d/{n}.png", "{split}/masks/d/{n}_mask.png"),
    ("images/{split}/{n}.png", "annotations/{split}/{n}.png.png"),
    ("imgs/{split}/{n}.png", "labels/{split}/{n}_seg.png"),
    ("{split}/images/{n}.png", "{split}/masks/{n}_label.png"),
)


@pytest.mark.parametrize(("image_path", "label_path"), OWN_FORMS)
def test_folders_as_people_have_them(tmp_path: Path, image_path: str, label_path: str) -> None:
    root = str(tmp_path)
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        for n in seeds:
            write(root, {image_path.format(split=split, n=n): image(n), label_path.format(split=split, n=n): ids(n)})
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        images = LabelledImages(STORAGE, root, split, STREET)
        assert len(images) == len(seeds)
        for index, n in enumerate(seeds):
            assert (images.image(index) == image(n)).all() and (images.label(index) == ids(n)).all()


@pytest.mark.parametrize("names", [("images", "labels"), ("imgs", "masks"), ("images", "annotations"), "pairs.csv"])
def test_one_folder_is_divided(tmp_path: Path, names: tuple[str, str] | str) -> None:
    root = str(tmp_path)
    kinds = ("x", "y") if isinstance(names, str) else names
    for n in range(30):
        write(root, {f"{kinds[0]}/{n:02d}.png": image(n), f"{kinds[1]}/{n:02d}.png": ids(n)})
    if isinstance(names, str):
        rows = [f"x/{n:02d}.png,y/{n:02d}.png" for n in range(30)]
        write(root, {names: "\n".join(["image_uri,label_uri", *rows])})
    train, val = (LabelledImages(STORAGE, root, split, STREET) for split in ("train", "val"))
    uris = [{pair.image_uri for pair in images.pairs} for images in (train, val)]
    assert len(uris[0] | uris[1]) == 30 and not uris[0] & uris[1] and uris[1]
    half = LabelledImages(STORAGE, root, "val", STREET, division=Division(0.5))
    assert 5 < len(half) < 25 and uris[1] <= {pair.image_uri for pair in half.pairs}


def test_a_folder_with_train_alone_is_divided_if_asked(tmp_path: Path) -> None:
    for n in range(10):
        write(str(tmp_path), {f"train/images/{n}.png": image(n), f"train/labels/{n}.png": ids(n)})
    with pytest.raises(ConfigError, match=r"val/images holds no image.*--val-fraction 0\.1"):
        LabelledImages(STORAGE, str(tmp_path), "val", STREET)
    sizes = [len(LabelledImages(STORAGE, str(tmp_path), s, STREET, division=Division(0.3))) for s in ("train", "val")]
    assert sum(sizes) == 10 and min(sizes) >= 1
    write(str(tmp_path / "one"), {"images/9.png": image(9), "labels/9.png": ids(9)})
    both = [DataSet(STORAGE, folders(str(tmp_path / "own")), STREET)]
    both += [DataSet(STORAGE, str(root), STREET) for root in (tmp_path, tmp_path / "one")]
    # Beside a data set with val, a data set with train alone adds to train, and a single image is no error.
    assert [len(each.pairs) for each in read_split(both, "train")][:2] == [2, 10]
    assert [len(each.pairs) for each in read_split(both, "val")][:2] == [1, 0]
    folders(str(tmp_path / "both"))
    with pytest.raises(ConfigError, match="has a val split of its own: leave out --val-fraction"):
        LabelledImages(STORAGE, str(tmp_path / "both"), "train", STREET, division=Division(0.3))


def test_published_layouts_come_before_a_folder_of_ones_own(tmp_path: Path) -> None:
    root = manifest(str(tmp_path))
    write(root, {"images/1.png": image(1), "labels/1.png": ids(1)})
    assert LabelledImages(STORAGE, root, "train", STREET).layout == "manifest"
    write(str(tmp_path / "coco"), {"images/1.png": image(1), "annotations/instances.json": "{}"})
    with pytest.raises(ConfigError, match="Looked for, and did not find"):
        LabelledImages(STORAGE, str(tmp_path / "coco"), "train", STREET)


def test_images_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    root = folders(str(tmp_path))
    write(root, {"train/images/7.png": image(7), "train/images/notes.txt": "x"})
    (found,) = read_split([DataSet(STORAGE, root, STREET)], "train")
    assert len(found.pairs) == 2 and [Path(uri).name for uri in found.unlabeled] == ["7.png"]
    assert re.search(
        r"1 of 3 images below .*train/images have no label and are left out, first .*7\.png", found.notes[0]
    )
    assert found.notes[1].endswith(": 1 .txt")
    write(str(tmp_path / "none"), {"images/a.png": image(0), "labels/b.png": ids(0)})
    with pytest.raises(
        ConfigError, match=r"none of 1 images .* has a label .*looked for one named a\.png or a_mask\.png"
    ):
        LabelledImages(STORAGE, str(tmp_path / "none"), "train", STREET)
