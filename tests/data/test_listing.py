"""Tests of listings page by page and of files block by block, against simple implementations."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data import listing
from pipeline.data.listing import level, spooled, walk
from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectChanged, ObjectMissing, StorageError
from tests.shared import STORAGE

NAMES = ("a.jpg", "b/c.jpg", "b/d e+%25.jpg", "b/.hidden", "ü/ß.png", "z//double.jpg", "b.jpg", "b-.jpg", "zz/y/x")


@pytest.fixture(params=["s3", "local"])
def root(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("bucket") if request.param == "s3" else str(request.getfixturevalue("tmp_path"))


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_pages_together_are_the_listing(root: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(NAMES):
        STORAGE.write(join(root, "in", name), b"x" * number)
    STORAGE.write(join(root, "in-side"), b"a neighbour, not below")
    monkeypatch.setattr(listing, "_PAGE", page)
    walked = list(walk(STORAGE, join(root, "in")))
    assert set(walked) == set(STORAGE.list(join(root, "in")))
    assert len(walked) == len(NAMES) - 1, "all but the name that begins with a dot"
    assert list(walk(STORAGE, join(root, "in", "a.jpg"))) == STORAGE.list(join(root, "in", "a.jpg"))
    assert list(walk(STORAGE, join(root, "none"))) == []


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket: str) -> None:
    with pytest.raises(StorageError):
        list(walk(STORAGE, "s3://no-such-bucket/in"))


def test_links_are_followed_but_not_in_circles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "a.png").write_bytes(b"abc")
    (elsewhere / "deep" / "b.png").write_bytes(b"b")
    root = tmp_path / "in"
    root.mkdir()
    links = {"one.png": elsewhere / "a.png", "all": elsewhere, "nowhere.png": tmp_path / "none", "self": root / "self"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    (elsewhere / "deep" / "top").symlink_to(root)
    found = {info.uri: info for info in walk(STORAGE, str(root))}
    assert sorted(found) == [str(root / name) for name in ("all/a.png", "all/deep/b.png", "one.png")]
    assert all(STORAGE.info(uri) == info for uri, info in found.items()), "the versions of a listing and of a look-up"
    assert "not listed below" in caplog.text and "4 entries, such as" in caplog.text
    assert (str(root / "all"), True) in list(level(STORAGE, str(root)))
    assert STORAGE.list(str(root / "one.png")) == [found[str(root / "one.png")]]


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 35])
def test_files_come_whole_block_by_block(root: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BLOCK", 10)
    STORAGE.write(join(root, "file"), bytes(range(size)))
    with spooled(STORAGE, join(root, "file")) as file:
        assert file.read() == bytes(range(size))
    with pytest.raises(ObjectMissing), spooled(STORAGE, join(root, "missing")):
        pass


class _Replacing(Storage):
    """Storage in which another writer replaces a file by one of the same length while it is read."""

    def call(self, action, uri, request):  # type: ignore[no-untyped-def]
        result = super().call(action, uri, request)
        if action == "read":
            STORAGE.write(uri, b"Z" * 30)
        return result


def test_a_file_replaced_meanwhile_is_not_read_as_a_mixture(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_BLOCK", 10)
    STORAGE.write(join(bucket, "file"), b"a" * 30)
    with pytest.raises(ObjectChanged), spooled(_Replacing(), join(bucket, "file")):
        pass
