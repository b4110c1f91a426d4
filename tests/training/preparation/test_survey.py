"""Tests of a dry run's findings in the data, against the files that were written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.training.preparation.dry_run import dry_run
from pipeline.training.preparation.survey import Survey, survey_data
from pipeline.training.samples.sources import Sources
from tests.segmentation.support import png
from tests.shared import STORAGE
from tests.training.own_data import CLASSES_CSV, SIZE, VALUES, request, scene, submit, write_photos


def survey(root: Path, data: str) -> Survey:
    config = submit(request(data, root / "run", val_fraction=0.3).model_copy(update={"dry_run": True}))
    sources = Sources(config, STORAGE)
    return survey_data(sources.own_train, sources.val, config.recipe.space(), 255, sources.notes())


def test_classes_are_counted_as_they_were_drawn(tmp_path: Path) -> None:
    data = write_photos(str(tmp_path / "data"), count=20, classes=f"{CLASSES_CSV}7,Mond\n")
    found = survey(tmp_path, data)
    assert found.classes[0].name == "Mond" and found.classes[0].images == 0
    in_train = found.splits["train"]
    in_val = found.splits["val"]
    assert (in_train.total, in_train.read) == (20 - in_val.total, in_train.total) and not found.problems
    shown = {uri for split in (in_train, in_val) for uri in split.contents.values()}
    assert len(shown) == 20
    ids = [scene(int(Path(uri).stem[1:]))[1] for uri in in_train.contents.values()]
    for each in found.classes[1:]:
        number = ("land", "Wasser", "空").index(each.name)
        assert each.pixels == sum(int((picture == number).sum()) for picture in ids)
        assert each.images == sum(bool((picture == number).any()) for picture in ids)
    assert [each.pixels for each in found.classes] == sorted(each.pixels for each in found.classes)
    assert sum(each.share for each in found.classes) == pytest.approx(1)
    assert found.sizes() == "all images have 36×52 pixels (height×width)"
    assert "class Mond is in no training label" in list(found.warnings())
    assert re.search(r"^Wasser +[\d,]+ +\d+\.\d\d% +\d+ +\d+$", found.table(), re.MULTILINE)


def spoiled(tmp_path: Path) -> tuple[str, dict[str, list[str]]]:
    """Write photographs, some of which are unusable for training, and return the names in each split."""
    data = write_photos(str(tmp_path / "data"), count=20)
    found = survey(tmp_path / "before", data)
    names = {split: [Path(uri).stem for uri in each.contents.values()] for split, each in found.splits.items()}
    image, ids = scene(999)
    for split in ("train", "val"):
        # One photograph in both splits, one label all void, one of another size, and one with an unknown value.
        STORAGE.write(join(data, f"images/{names[split][0]}.png"), png(image))
        STORAGE.write(join(data, f"masks/{names[split][0]}_mask.png"), png(VALUES[ids].astype(np.uint8)))
    STORAGE.write(join(data, "classes.csv"), f"{CLASSES_CSV}9,ignore\n".encode())
    STORAGE.write(join(data, f"masks/{names['train'][1]}_mask.png"), png(np.full(SIZE, 9, np.uint8)))
    STORAGE.write(join(data, f"masks/{names['train'][2]}_mask.png"), png(np.zeros((9, 9), np.uint8)))
    STORAGE.write(join(data, f"masks/{names['train'][3]}_mask.png"), png(np.full(SIZE, 3, np.uint8)))
    return data, names


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    data, names = spoiled(tmp_path)
    found = survey(tmp_path, data)
    first, void, size, value = names["train"][:4]
    assert found.duplicates == [(join(data, f"images/{first}.png"), join(data, f"images/{names['val'][0]}.png"))]
    assert found.splits["train"].ignored == [join(data, f"masks/{void}_mask.png")]
    assert {Path(uri).stem for uri in found.problems} == {size, value}
    assert "9×9 pixels" in found.problems[join(data, f"images/{size}.png")]
    assert "[3] (1,872 of 1,872 pixels)" in found.problems[join(data, f"images/{value}.png")]
    warnings = " ".join(found.warnings())
    for words in (
        "training cannot use 2 pairs of train",
        "1 labels of train have no pixel",
        "1 images are in both train and val",
    ):
        assert words in warnings


def test_a_dry_run_draws_the_rest_and_ends_with_what_is_wrong(tmp_path: Path) -> None:
    data, names = spoiled(tmp_path)
    config = submit(request(data, tmp_path / "run", val_fraction=0.3).model_copy(update={"dry_run": True}))
    with pytest.raises(
        ConfigError, match=r"training cannot use 2 pairs: .*fix or remove them, .*index\.html lists all"
    ):
        list(dry_run(config, STORAGE))
    page = (tmp_path / "run/dry-run/index.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page) == [] and "<script" not in page
    for words in ("Wasser", "空", names["train"][2], "First batch of stage front end", "have no pixel of any class"):
        assert words in page
    assert (tmp_path / "run/dry-run/front_end.png").exists()
