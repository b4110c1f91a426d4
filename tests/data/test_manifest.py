"""Tests of listing, pairing and freezing of inputs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.manifest import build_manifest, glob_pattern
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from tests.shared import STORAGE


@pytest.fixture
def filled(bucket: str) -> str:
    storage = STORAGE
    for name in ("b.JPG", "a.png", "deep/er/c.tiff", "notes.txt", "_hidden.jpg", ".dot.jpg", "deep/d.jpeg"):
        storage.write(join(bucket, "in", name), name.encode())
    for name in ("a.png", "deep/er/c.png", "deep/x.png", "readme.md"):
        storage.write(join(bucket, "lab", name), b"label")
    return bucket


def test_prefix(filled: str) -> None:
    rows = list(build_manifest(STORAGE, join(filled, "in")).rows())
    names = [row["image_uri"].removeprefix(filled + "/in/") for row in rows]
    assert names == ["_hidden.jpg", "a.png", "b.JPG", "deep/d.jpeg", "deep/er/c.tiff"]
    assert rows[1]["size"] == 5
    assert len(rows[1]["version"]) == 32


def test_labels_pair_by_relative_path_without_extension(filled: str) -> None:
    rows = list(build_manifest(STORAGE, join(filled, "in") + "/", join(filled, "lab")).rows())
    pairs = {row["image_uri"]: row["label_uri"] for row in rows}
    assert pairs[join(filled, "in/deep/er/c.tiff")] == join(filled, "lab/deep/er/c.png")
    assert pairs[join(filled, "in/a.png")] == join(filled, "lab/a.png")
    assert pairs[join(filled, "in/deep/d.jpeg")] is None


def test_labels_pair_by_the_endings_of_annotation_tools(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a.jpg", "b.png", "c.JPG", "d.jpg", "e.jpg", "f/g.jpg", "h.heif-not", "i.txt", "j.txt")
    for name in names:
        STORAGE.write(join(bucket, "in", name), b"image")
    for name in ("a_mask.png", "b_label.png", "c.JPG.png", "d_seg.png", "e.png", "e_mask.png", "f/g_mask.tif"):
        STORAGE.write(join(bucket, "lab", name), b"label")
    rows = list(build_manifest(STORAGE, join(bucket, "in"), join(bucket, "lab")).rows())
    pairs = {row["image_uri"].rsplit("in/")[1]: (row["label_uri"] or "").rsplit("lab/")[-1] for row in rows}
    expected = {"a.jpg": "a_mask.png", "b.png": "b_label.png", "c.JPG": "c.JPG.png", "d.jpg": "d_seg.png"}
    # A label of exactly the image's name comes first.
    assert pairs == expected | {"e.jpg": "e.png", "f/g.jpg": "f/g_mask.tif"}
    assert "passed over below" in caplog.text and ": 2 .txt, 1 .heif-not" in caplog.text
    STORAGE.write(join(bucket, "lab", "a_seg.png"), b"label")
    with pytest.raises(ConfigError, match=r"a_mask\.png and .*a_seg\.png both pair with `a`"):
        build_manifest(STORAGE, join(bucket, "in"), join(bucket, "lab"))


def test_a_label_with_an_images_own_name_is_that_images_alone(tmp_path: Path) -> None:
    for name in ("in/street.png", "in/street_seg.png", "in/c.png", "lab/street_seg.png", "lab/c.png", "lab/c_mask.png"):
        STORAGE.write(str(tmp_path / name), b"x")
    STORAGE.write(str(tmp_path / "lab/c_seg.png"), b"x")
    rows = build_manifest(STORAGE, str(tmp_path / "in"), str(tmp_path / "lab")).rows()
    pairs = {Path(row["image_uri"]).name: row["label_uri"] and Path(row["label_uri"]).name for row in rows}
    assert pairs == {"street.png": None, "street_seg.png": "street_seg.png", "c.png": "c.png"}


def test_two_labels_for_one_image_are_refused(filled: str) -> None:
    STORAGE.write(join(filled, "lab", "a.bmp"), b"label")
    with pytest.raises(ConfigError, match=r"a\.bmp.*a\.png"):
        build_manifest(STORAGE, join(filled, "in"), join(filled, "lab"))


def test_glob_and_limit(filled: str) -> None:
    uris = [row["image_uri"] for row in build_manifest(STORAGE, join(filled, "in", "**", "*.j*g")).rows()]
    assert [uri.rsplit("/", 1)[1] for uri in uris] == ["_hidden.jpg", "d.jpeg"]
    assert build_manifest(STORAGE, join(filled, "in"), limit=2).num_rows == 2
    assert build_manifest(STORAGE, join(filled, "in"), limit=0).num_rows == 0


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "txt"])
def test_manifest_files(filled: str, kind: str) -> None:
    images = [join(filled, "in", name) for name in ("b.JPG", "a.png", "missing.jpg")]
    labels = [None, join(filled, "lab", "a.png"), None]
    table = pa.table({"image_uri": images, "label_uri": labels, "other": [1, 2, 3]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    contents = {
        "parquet": sink.getvalue(),
        "csv": (
            "image_uri,label_uri\n" + "\n".join(f"{i},{x or ''}" for i, x in zip(images, labels, strict=True))
        ).encode(),
        "jsonl": "\n".join(json.dumps(row) for row in table.to_pylist()).encode(),
        "txt": "\n".join(images).encode() + b"\n\n",
    }
    STORAGE.write(join(filled, f"list.{kind}"), contents[kind])
    rows = list(build_manifest(STORAGE, join(filled, f"list.{kind}")).rows())
    assert [row["image_uri"] for row in rows] == sorted(images)
    assert rows[0]["label_uri"] == (None if kind == "txt" else labels[1])
    assert rows[2]["size"] is None, "an image that is not there stays, to become an error row"


def test_duplicates_and_nonsense_are_refused(filled: str) -> None:
    storage = STORAGE
    storage.write(join(filled, "twice.txt"), f"{filled}/in/a.png\n{filled}/in/a.png".encode())
    with pytest.raises(ConfigError, match="twice"):
        build_manifest(storage, join(filled, "twice.txt"))
    storage.write(join(filled, "bad.parquet"), b"PAR1 not really")
    with pytest.raises(ConfigError, match="not a manifest"):
        build_manifest(storage, join(filled, "bad.parquet"))
    storage.write(join(filled, "bad.csv"), b"image,label\nx,y")
    with pytest.raises(ConfigError, match="image_uri"):
        build_manifest(storage, join(filled, "bad.csv"))


@pytest.mark.parametrize(
    ("kind", "image"), [("parquet", None), ("parquet", ""), ("jsonl", None), ("jsonl", 5), ("csv", ""), ("csv", None)]
)
def test_a_row_without_an_image_is_named(tmp_path: Path, kind: str, image: str | int | None) -> None:
    rows = [{"image_uri": "a.png"}, {"image_uri": image}]
    sink = io.BytesIO()
    # A CSV file without any image is read as a column of nulls.
    texts = {"jsonl": "\n".join(map(json.dumps, rows)), "csv": f"image_uri,x\n{'a.png' if image == '' else ''},1\n,2\n"}
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), sink)
    path = tmp_path / f"list.{kind}"
    path.write_bytes(sink.getvalue() or texts[kind].encode())
    row = 1 if (kind, image) == ("csv", None) else 2
    with pytest.raises(ConfigError, match=rf"row {row} of {path} has the `image_uri` .*: give it the URI of an image"):
        build_manifest(STORAGE, str(path))


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in (("in", "x.jpg"), ("lab", "x.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"1")
    row = next(build_manifest(STORAGE, "in", "lab").rows())
    assert row["image_uri"] == str(tmp_path / "in" / "x.jpg")
    assert row["label_uri"] == str(tmp_path / "lab" / "x.png")


def test_labels_among_the_images_are_no_images(filled: str) -> None:
    rows = list(build_manifest(STORAGE, filled, join(filled, "lab")).rows())
    assert rows and not any("/lab/" in row["image_uri"] for row in rows)


def test_images_and_labels_need_a_prefix_each(filled: str) -> None:
    with pytest.raises(ConfigError, match="a prefix each"):
        build_manifest(STORAGE, join(filled, "in"), join(filled, "in") + "/")


def test_digest_follows_the_content(filled: str) -> None:
    first, second = (build_manifest(STORAGE, join(filled, "in")) for _ in range(2))
    assert first.digest() == second.digest()
    STORAGE.write(join(filled, "in", "a.png"), b"other")
    assert build_manifest(STORAGE, join(filled, "in")).digest() != first.digest()


@given(st.text("ab/*?", max_size=8), st.text("ab/", max_size=8))
def test_glob_rule_by_its_definition(pattern: str, name: str) -> None:
    assert bool(glob_pattern(pattern).fullmatch(name)) == matches(pattern, name)


def matches(pattern: str, name: str) -> bool:
    """Pair images and labels naively by the documented rule, trying every combination."""
    if not pattern:
        return not name
    if pattern.startswith("**/"):
        starts = [0] + [match.end() for match in re.finditer("/", name)]
        return any(matches(pattern[3:], name[start:]) for start in starts)
    if pattern.startswith("**"):
        return any(matches(pattern[2:], name[start:]) for start in range(len(name) + 1))
    if pattern[0] == "*":
        reach = (name + "/").index("/")
        return any(matches(pattern[1:], name[start:]) for start in range(reach + 1))
    if not name or (pattern[0] != name[0] and (pattern[0] != "?" or name[0] == "/")):
        return False
    return matches(pattern[1:], name[1:])
