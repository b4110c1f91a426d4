"""Tests of painting for any source: values, classes files, lists of pairs, and the job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs import paint_labels as job
from pipeline.data.class_files import read_classes
from pipeline.data.labels import decode_label
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.results.exports.label_studio import brush_rle
from tests.data.annotations.support import (
    FILES,
    HEIGHT,
    WIDTH,
    brush_result,
    coco,
    folder_content,
    ls_task,
    paint,
    read_classes_csv,
    read_png,
    rectangle,
    write_json,
)
from tests.shared import STORAGE

HALF = [rectangle(0, 0, WIDTH / 2, HEIGHT)]
OTHER_HALF = [rectangle(WIDTH / 2, 0, WIDTH, HEIGHT)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a COCO JSON of two images; a car covers the left half of each, and nothing covers the right half."""
    content = coco([(1, 3, HALF), (2, 3, HALF)], names=["u/a.jpg", "u/b.jpg"])
    return write_json(tmp_path / "source.json", content)


def halves(path: Path | str, name: str = "u/a") -> list[int]:
    labels = read_png(path, name)
    assert (labels[:, : WIDTH // 2] == labels[0, 0]).all() and (labels[:, WIDTH // 2 :] == labels[0, -1]).all()
    return [int(labels[0, 0]), int(labels[0, -1])]


def test_uncovered_pixels_are_background_or_void(source: Path, tmp_path: Path) -> None:
    painted = paint(source, tmp_path / "x")
    assert halves(tmp_path / "x") == [1, 0] and painted.void == 0
    assert painted.pixels == {"road": 0, "car": HEIGHT * WIDTH, "background": HEIGHT * WIDTH}
    painted = paint(source, tmp_path / "y", uncovered="ignore")
    assert halves(tmp_path / "y") == [1, 255] and painted.void == HEIGHT * WIDTH
    assert read_classes_csv(tmp_path / "y") == ["1,car,,,", "2,road,,,"]


def test_background_that_no_pixel_needs_is_listed_only_as_a_category(tmp_path: Path) -> None:
    covered = coco([(1, 3, HALF), (1, 7, OTHER_HALF)])
    paint(write_json(tmp_path / "x.json", covered), tmp_path)
    assert halves(tmp_path, "a") == [1, 2] and read_classes_csv(tmp_path) == ["1,car,,,", "2,road,,,"]
    covered["categories"].append({"id": 1, "name": "background"})
    paint(write_json(tmp_path / "x.json", covered), tmp_path)
    assert read_classes_csv(tmp_path) == ["0,background,,,", "1,car,,,", "2,road,,,"]


def test_training_reads_what_was_painted(source: Path, tmp_path: Path) -> None:
    paint(source, tmp_path)
    space = read_classes(STORAGE, str(tmp_path / "classes.csv"))
    data = (tmp_path / "labels/u/a.png").read_bytes()
    assert space.classes == ("background", "car", "road")
    assert decode_label(data, 3, 255, space).tolist() == read_png(tmp_path, "u/a").tolist()


@pytest.mark.parametrize(
    ("rows", "uncovered", "expected"),
    [
        (["7,road", "40,car", "9,background"], "background", [40, 9]),
        (["7,road", "40,car", "30,car", "9,background"], "background", [30, 9]),
        (["7,road", "40,car", "9,background"], "ignore", [40, 255]),
        (["7,road", "40,car"], "background", [40, 255]),
        (["7,road", "40,car", "3,ignore", "2,ignore"], "background", [40, 2]),
        (["7,road", "300,car", "9,background"], "background", [300, 9]),
        (["255,road", "40,car", "254,ignore"], "background", [40, 254]),
    ],
)
def test_values_of_a_classes_file_are_written(
    source: Path, tmp_path: Path, rows: list[str], uncovered: str, expected: list[int]
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["id,name", *rows]) + "\n")
    assert job.main([str(source), "--output", f"{tmp_path}/x", "--classes", str(own), "--uncovered", uncovered]) == 0
    assert halves(tmp_path / "x") == expected
    assert (tmp_path / "x/classes.csv").read_bytes() == own.read_bytes()
    data = (tmp_path / "x/labels/u/a.png").read_bytes()
    assert data[24] == (16 if max(expected) > 255 else 8)
    space = read_classes(STORAGE, str(own))
    labels = decode_label(data, len(space.classes), 255, space)
    void = "9,background" not in rows or uncovered == "ignore"
    car = space.classes.index("car")
    background = None if void else space.classes.index("background")
    assert [labels[0, 0], labels[0, -1]] == [car, 255 if background is None else background]


def test_classes_files_that_lack_a_class_are_refused(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("id,name\n0,background\n1,road\n")
    with pytest.raises(ConfigError, match=r"own\.csv has no class 'car', which the annotations need: add a row"):
        paint(source, tmp_path, classes=str(own))
    own.write_text("id,name\n255,road\n1,car\n")
    with pytest.raises(ConfigError, match=r"a\.jpg has pixels that no object covers: add a row background or ignore"):
        paint(source, tmp_path, classes=str(own))
    with pytest.raises(ConfigError, match="there is no classes file"):
        paint(source, tmp_path, classes=str(tmp_path / "nothing.csv"))


def test_a_classes_file_replaces_that_of_the_other_format(source: Path, tmp_path: Path) -> None:
    own = write_json(tmp_path / "own.json", {"classes": [{"id": 1, "name": "car"}, {"id": 2, "name": "road"}]})
    paint(source, tmp_path / "x")
    paint(source, tmp_path / "x", classes=str(own))
    assert (tmp_path / "x/classes.json").read_bytes() == own.read_bytes()
    assert not (tmp_path / "x/classes.csv").exists()
    paint(source, tmp_path / "x")
    assert not (tmp_path / "x/classes.json").exists() and (tmp_path / "x/classes.csv").exists()


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_pairs_are_listed_unless_images_lie_beside_the_labels(source: Path, tmp_path: Path) -> None:
    images = [touch(tmp_path / f"in/u/{name}.jpg") for name in "ab"]
    assert paint(source, tmp_path / "x").pairs is None
    painted = paint(source, tmp_path / "x", images=str(tmp_path / "in"))
    assert painted.pairs == f"{tmp_path}/x/pairs.csv" and not painted.unlocated
    rows = [f"{image},{tmp_path}/x/labels/u/{image.stem}.png" for image in images]
    assert Path(painted.pairs).read_text().splitlines() == ["image_uri,label_uri", *rows]
    for name in "ab":
        touch(tmp_path / f"x/images/u/{name}.jpg")
    painted = paint(source, tmp_path / "x", images=f"file://{tmp_path}/x/images/")
    assert painted.pairs is None and not painted.unlocated and not (tmp_path / "x/pairs.csv").exists()


def test_images_that_are_not_there_are_left_out_and_named(source: Path, tmp_path: Path) -> None:
    touch(tmp_path / "in/u/b.jpg")
    painted = paint(source, tmp_path / "x", images=str(tmp_path / "in"))
    assert (painted.images, painted.missing) == (1, ("u/a.jpg",))
    assert dict(painted.left_out) == {"not in the folder of images": 1}
    assert not (tmp_path / "x/labels/u/a.png").exists()
    with pytest.raises(ConfigError, match=r"no image to paint .2 images: not in the folder of images"):
        paint(source, tmp_path / "x", images=str(tmp_path / "nowhere"))


def test_masks_find_their_images_by_path_without_extension(tmp_path: Path) -> None:
    touch(tmp_path / "in/a/one.jpeg")
    image = touch(tmp_path / "in/two.webp")
    touch(tmp_path / "in/two.txt")
    paint(FILES / "segmentation_mask", tmp_path / "x", images=str(tmp_path / "in"))
    assert f"{image},{tmp_path}/x/labels/two.png" in (tmp_path / "x/pairs.csv").read_text().splitlines()
    touch(tmp_path / "in/two.png")
    with pytest.raises(ConfigError, match=r"two\.png may be two\.\w+ or two\.\w+ in .*: rename one"):
        paint(FILES / "segmentation_mask", tmp_path / "x", images=str(tmp_path / "in"))


def test_sources_and_outputs_in_a_bucket(bucket: str, source: Path) -> None:
    STORAGE.write(join(bucket, "source.json"), source.read_bytes())
    for name, data in folder_content(FILES / "segmentation_mask").items():
        STORAGE.write(join(bucket, "masks", name), data)
    for name in ("u/a.jpg", "u/b.jpg", "two.jpg"):
        STORAGE.write(join(bucket, "in", name), b"x")
    painted = paint(join(bucket, "source.json"), f"{bucket}/x/", images=join(bucket, "in"))
    assert painted.pairs == f"{bucket}/x/pairs.csv" and halves(f"{bucket}/x") == [1, 0]
    assert f"{bucket}/in/u/a.jpg,{bucket}/x/labels/u/a.png" in STORAGE.read(painted.pairs).decode().splitlines()
    painted = paint(join(bucket, "masks"), join(bucket, "y"), images=join(bucket, "in"))
    assert (painted.images, painted.missing) == (1, ("a/one",)) and read_png(f"{bucket}/y", "two").any()
    region = np.ones((HEIGHT, WIDTH), bool)
    task = ls_task([brush_result("car", brush_rle(region))], f"{bucket}/in/two.jpg")
    STORAGE.write(join(bucket, "tasks.json"), json.dumps([task]).encode())
    with pytest.raises(ConfigError, match=r"tasks\.json shows only the classes \['car'\]"):
        paint(join(bucket, "tasks.json"), join(bucket, "z"))


def test_the_job_prints_what_it_did_and_what_comes_next(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "in/u/b.jpg")
    arguments = [str(source), "--output", f"{tmp_path}/x", "--images", f"{tmp_path}/in", "--uncovered", "ignore"]
    assert job.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 images painted into {tmp_path}/x/labels",
        "class road: 0.000% of all pixels",
        "class car: 50.000% of all pixels",
        "void: 50.000% of all pixels",
        "1 images left out: not in the folder of images",
        "first missing images: u/a.jpg",
        f"pairs of images and labels: {tmp_path}/x/pairs.csv",
        f"next: jobs/train.py custom --data {tmp_path}/x --output URI",
    ]


def test_exit_codes(source: Path, tmp_path: Path, s3_env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main([f"{tmp_path}/nothing.json", "--output", f"{tmp_path}/x"]) == 2
    assert job.main(["nowhere://x", "--output", f"{tmp_path}/x"]) == 2
    assert job.main([str(source), "--output", f"{source}/x"]) == 3
    assert job.main(["s3://no-such-bucket-here/x", "--output", f"{tmp_path}/x"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
    assert job.main([str(source), "--output", "x", "--uncovered", "sky"]) == 2


def test_neither_ray_nor_torch_is_imported(source: Path, tmp_path: Path) -> None:
    script = "import sys\nfrom jobs.paint_labels import main\ncode = main(sys.argv[1:])\n"
    script += "assert not {'ray', 'torch'} & sys.modules.keys()\nsys.exit(code)\n"
    root = Path(job.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, str(source), "--output", str(tmp_path / "x")], cwd=root, check=True)


def test_a_prefix_in_other_values_is_refused_and_equal_labels_are_left_alone(source: Path, tmp_path: Path) -> None:
    paint(source, tmp_path / "x")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "x/labels").rglob("*.png")}
    paint(source, tmp_path / "x")
    assert files and files == {path: path.stat().st_mtime_ns for path in (tmp_path / "x/labels").rglob("*.png")}
    text = (tmp_path / "x/classes.csv").read_text()
    (tmp_path / "x/classes.csv").write_text(text.replace("1,", "77,", 1))
    with pytest.raises(ConfigError, match=r"classes\.csv gives value 1 or class .* another meaning.*another --output"):
        paint(source, tmp_path / "x")
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "x/labels").rglob("*.png")}
