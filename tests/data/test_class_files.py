"""Tests of classes files: their meaning, what is refused, and colors that color-blind people can tell apart."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from colorspacious import cspace_convert
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.class_files import ClassRow, choose_palette, classes_csv, find_classes, read_classes
from pipeline.data.label_spaces import LabelSpace
from pipeline.errors import ConfigError
from tests.shared import STORAGE


def read(folder: Path, content: str | bytes, name: str = "classes.csv") -> LabelSpace:
    uri = str(folder / name)
    STORAGE.write(uri, content.encode() if isinstance(content, str) else content)
    return read_classes(STORAGE, uri)


def test_ids_may_have_gaps_and_share_a_name(tmp_path: Path) -> None:
    space = read(tmp_path, "id,name\n3,ignore\n9,voiture\n0,路\n7,voiture\n")
    assert space.classes == ("voiture", "路") and space.encoding is not None
    assert space.encoding.values == ((7, 9), (0,))
    assert space.encoding.ignored == (3, 255)
    assert len(set(space.palette)) == 2


def test_colors_in_the_file_are_kept_and_the_others_chosen(tmp_path: Path) -> None:
    text = "\ufeffname, red,green,blue ,id\nsky,1,2,3,0\nroad,,,,1\ncar,7,8,9,2\ncar,70,80,90,3\nignore,9,9,9,4\n"
    space = read(tmp_path, text)
    assert space.palette[0] == (1, 2, 3) and space.palette[2] == (7, 8, 9) and space.encoding is not None
    assert space.encoding.colors[2] == ((7, 8, 9), (70, 80, 90))
    assert space.encoding.ignored_colors == ((9, 9, 9),)
    assert space.palette[1] not in {(1, 2, 3), (7, 8, 9), (70, 80, 90), (9, 9, 9)}


def test_background_is_gray_unless_it_has_a_color(tmp_path: Path) -> None:
    assert read(tmp_path, "id,name\n1,sky\n0,background\n").palette[1] == (128, 128, 128)
    text = "id,name,red,green,blue\n0,background,1,2,3\n1,sky,,,\n"
    assert read(tmp_path, text).palette[0] == (1, 2, 3)


def test_json_says_the_same(tmp_path: Path) -> None:
    classes = [{"id": 0, "name": "sky", "color": [1, 2, 3]}, {"id": 300, "name": "car"}]
    space = read(tmp_path, json.dumps({"classes": classes, "ignore_label": [7, 8]}), "classes.json")
    assert space.classes == ("sky", "car") and space.encoding is not None
    assert space.encoding.values == ((0,), (300,)) and space.encoding.ignored == (7, 8, 255)


def test_255_is_void_unless_it_is_a_class(tmp_path: Path) -> None:
    space = read(tmp_path, "id,name\n0,background\n255,cell\n")
    assert space.encoding is not None
    assert space.encoding.values == ((0,), (255,)) and space.encoding.ignored == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,name\n0,a\n0,b\n", r"classes\.csv names id 0 both 'a' and 'b'"),
        ("id,name,red,green,blue\n0,a,1,2,3\n1,b,1,2,3\n", r"'a' and 'b' the same color \(1, 2, 3\)"),
        ("id,name\n65536,a\n1,b\n", r"line 2: the id is '65536', must be a whole number from 0 to 65535"),
        ("id,name\n-1,a\n1,b\n", r"line 2: the id is '-1'"),
        ("id,name\n1.5,a\n1,b\n", r"line 2: the id is '1\.5'"),
        ("id,name,red,green,blue\n0,a,1,2,256\n1,b,,,\n", r"a color channel is '256'"),
        ("id,name,red,green,blue\n0,a,1,,3\n1,b,,,\n", r"line 2: a color channel is ''"),
        ("id,name\n0,\n1,b\n", r"line 2 gives id 0 no name: fill it in"),
        ("id,name\n0,a\n", r"names 1 classes: a network has 2 to 255"),
        ("id,name\n" + "".join(f"{n},c{n}\n" for n in range(256)), r"names 256 classes"),
        ("id;name\n0;a\n", r"has the columns id;name: it needs id,name"),
        ("id,name,colour\n0,a,b\n", r"has the columns id, name, colour"),
        ("id,name\n0,a,b\n1,b\n", r"line 2 has 3 cells, its header 2"),
        ("", r"has the columns \(none\)"),
        (b"\xff\xfe\x00", r"is not a CSV file in UTF-8"),
        ("id,name\n0,a\x07\n1,b\n", r"printable characters"),
    ],
)
def test_a_wrong_csv_is_named_with_line_and_remedy(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"needs \{\"classes\""),
        ("{", r"is not JSON"),
        ("[" * 100_000, r"is not JSON"),
        ('{"classes": [], "ignore": 1}', r"unknown key 'ignore'"),
        ('{"classes": [{"id": 0}]}', r"class 0 is \{\"id\": 0\}: it needs the keys id and name"),
        ('{"classes": [{"id": true, "name": "a"}, {"id": 1, "name": "b"}]}', r"class 0: the id is True"),
        ('{"classes": [{"id": 0, "name": "a", "color": "red"}]}', r"the color red is not \[red, green, blue\]"),
        (
            '{"classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}], "ignore_label": 1}',
            r"as ignore_label and as cl",
        ),
        ('{"classes": [{"id": 0, "name": 3}]}', r"no name"),
    ],
)
def test_a_wrong_json_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content, "classes.json")


def test_two_classes_files_are_one_too_many(tmp_path: Path) -> None:
    assert find_classes(STORAGE, str(tmp_path)) is None
    read(tmp_path, "id,name\n0,a\n1,b\n")
    assert find_classes(STORAGE, str(tmp_path)) == str(tmp_path / "classes.csv")
    (tmp_path / "classes.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"classes\.csv and .*classes\.json: remove one"):
        find_classes(STORAGE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no classes file .*none\.csv"):
        read_classes(STORAGE, str(tmp_path / "none.csv"))


@given(
    st.dictionaries(
        st.integers(0, 65535), st.text("abc é漢,\"'", min_size=1).filter(lambda name: bool(name.strip())), min_size=2
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, names: dict[int, str]) -> None:
    distinct = list(dict.fromkeys(name.strip() for name in names.values()))
    if not 2 <= len(distinct) <= 7:
        return
    rows = [ClassRow(value, name.strip()) for value, name in names.items()]
    space = read(tmp_path_factory.mktemp("classes"), classes_csv(rows))
    assert list(space.classes) == distinct and space.encoding is not None
    for class_id, values in enumerate(space.encoding.values):
        assert values == tuple(sorted(value for value, name in names.items() if name.strip() == distinct[class_id]))


@pytest.mark.parametrize("count", [2, 7, 21])
def test_chosen_colors_can_be_told_apart_by_color_blind_people(count: int) -> None:
    """Distances are in CAM02-UCS, where 1 is about the smallest visible difference of colors side by side."""
    taken = (200, 30, 30)
    palette = np.array([taken, *choose_palette(count, [taken])]) / 255
    assert len(palette) == count + 1
    for kind, severity in (("deuteranomaly", 0), ("deuteranomaly", 100), ("protanomaly", 100), ("tritanomaly", 100)):
        seen = palette
        if severity:
            space = {"name": "sRGB1+CVD", "cvd_type": kind, "severity": severity}
            seen = np.clip(cspace_convert(palette, space, "sRGB1"), 0, 1)
        places = cspace_convert(seen, "sRGB1", "CAM02-UCS")
        nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(places[1:], 2))
        assert nearest > 4, (kind, severity, nearest)
