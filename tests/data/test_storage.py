"""Tests of the retry policy, create-if-absent and fresh listings, on a real S3 server and on files."""

from __future__ import annotations

import hashlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, ConfigError, ObjectChanged, ObjectMissing, StorageError

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02)
NAMES = ["plain.txt", "with space.txt", "hash#mark", "per%2Fcent", "ünïcode/文.txt", "a+b=c&d", "two::colons", "[x]{y}"]


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of a bucket's prefix, or of a folder."""
    return request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path)


def test_round_trip_of_awkward_names(place: str) -> None:
    storage = Storage()
    for number, name in enumerate(NAMES):
        storage.write(join(place, "in", name), str(number).encode())
    assert [info.uri for info in storage.list(join(place, "in"))] == sorted(join(place, "in", name) for name in NAMES)
    for number, name in enumerate(NAMES):
        assert storage.read(join(place, "in", name)) == str(number).encode()


def test_a_prefix_is_a_folder_and_not_a_beginning(place: str) -> None:
    storage = Storage()
    storage.write(join(place, "in", "a"), b"1")
    storage.write(join(place, "in2", "b"), b"2")
    assert [info.size for info in storage.list(join(place, "in"))] == [1]
    assert storage.list(join(place, "nothing")) == []


def test_create_if_absent(place: str) -> None:
    storage = Storage()
    uri = join(place, "once")
    assert storage.write_once(uri, b"first")
    assert not storage.write_once(uri, b"other")
    assert storage.write_once(uri, b"first"), "the same bytes are what was wanted"
    assert storage.read(uri) == b"first"


def test_of_many_writers_at_once_exactly_one_wins(place: str) -> None:
    uri = join(place, "race")
    gate = threading.Barrier(8)

    def write(writer: int) -> bool:
        storage = Storage()
        gate.wait(timeout=30)
        return storage.write_once(uri, f"writer {writer}".encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert Storage().read(uri) == f"writer {won.index(True)}".encode()


def test_listings_are_fresh(place: str) -> None:
    storage = Storage()
    assert storage.list(join(place, "x")) == []
    Storage().write(join(place, "x", "new"), b"1")
    assert len(storage.list(join(place, "x"))) == 1
    assert not storage.exists(join(place, "x"))
    assert storage.exists(join(place, "x", "new"))


def test_replaced_objects_are_noticed(place: str) -> None:
    storage = Storage()
    uri = join(place, "object")
    storage.write(uri, b"old")
    version = storage.info(uri).version
    assert storage.read(uri, size=3, version=version) == b"old"
    storage.write(uri, b"newer")
    with pytest.raises(ObjectChanged, match="replaced"):
        storage.read(uri, size=3, version=version)


def test_s3_versions_are_etags(bucket: str) -> None:
    Storage().write(join(bucket, "object"), b"content")
    assert Storage().info(join(bucket, "object")).version == hashlib.md5(b"content").hexdigest()


def test_missing_objects_and_deletion(place: str) -> None:
    storage = Storage()
    with pytest.raises(ObjectMissing, match="no such object"):
        storage.read(join(place, "gone"))
    storage.write(join(place, "there"), b"1")
    storage.delete(join(place, "there"))
    storage.delete(join(place, "there"))
    assert not storage.exists(join(place, "there"))


def test_missing_bucket_is_not_an_empty_one(bucket: str) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        Storage(QUICK).list("s3://no-such-bucket-here/in")


def test_bad_credentials_are_told_at_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied, match="credentials"):
        Storage(RetryPolicy(attempts=50, first_delay=5)).read(join(bucket, "x"))


def test_unreachable_endpoint(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"endpoint.*3 attempts"):
        Storage(QUICK).read(join(bucket, "x"))


def test_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match="nonsense://"):
        Storage().read("nonsense://x/y")


def test_trial_write_leaves_nothing(place: str) -> None:
    storage = Storage()
    storage.check_writable(join(place, "out"))
    assert storage.list(join(place, "out")) == []


def test_read_only_output(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        Storage(QUICK).check_writable(str(tmp_path / "out"))


def test_storage_travels_to_another_process(place: str) -> None:
    storage = Storage(QUICK)
    storage.write(join(place, "x"), b"1")
    again = pickle.loads(pickle.dumps(storage))
    assert again.retry == QUICK
    assert again.read(join(place, "x")) == b"1"
