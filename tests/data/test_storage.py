"""One retry policy, create-if-absent and fresh listings, on a real S3 server and on files."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, ConfigError, ObjectChanged, ObjectMissing, StorageError

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02)
NAMES = ["plain.txt", "with space.txt", "hash#mark", "per%2Fcent", "ünïcode/文.txt", "a+b=c&d", "two::colons", "[x]{y}"]


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A bucket, or a folder."""
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
    storage, uri = Storage(), join(place, "once")
    assert storage.write_once(uri, b"first")
    assert not storage.write_once(uri, b"other")
    assert storage.write_once(uri, b"first"), "the same bytes are what was wanted"
    assert storage.read(uri) == b"first"


def test_of_many_writers_at_once_exactly_one_wins(place: str) -> None:
    uri, gate = join(place, "race"), threading.Barrier(8)

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
    storage, uri = Storage(), join(place, "object")
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


class Flaky:
    """Wraps a filesystem; fails in the given ways, one a call, before it works."""

    def __init__(self, inner: Any, failures: list[Callable[[], bytes] | Exception]) -> None:
        self.inner, self.failures, self.calls = inner, failures, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def cat_file(self, path: str) -> bytes:
        return self._fail_or(lambda: self.inner.cat_file(path))

    def pipe_file(self, path: str, data: bytes, **options: Any) -> None:
        failure = self.failures.pop(0) if self.failures else None
        self.calls += 1
        if failure == "lost reply":
            self.inner.pipe_file(path, data, **options)
            raise ConnectionResetError("reply lost")
        self.inner.pipe_file(path, data, **options)

    def _fail_or(self, work: Callable[[], bytes]) -> bytes:
        self.calls += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        return failure() if callable(failure) else work()


def flaky(storage: Storage, uri: str, failures: list[Any]) -> Flaky:
    wrapped = Flaky(storage.filesystem(uri)[0], failures)
    storage._filesystems["s3"] = wrapped
    return wrapped


def test_transient_failures_are_retried_and_counted(bucket: str) -> None:
    storage, uri = Storage(QUICK), join(bucket, "x")
    storage.write(uri, b"content")
    filesystem = flaky(storage, uri, [ConnectionResetError("reset"), TimeoutError("slow")])
    assert storage.read(uri) == b"content"
    assert filesystem.calls == 3
    filesystem.failures = [ConnectionResetError("reset")] * 3
    with pytest.raises(StorageError, match="3 attempts"):
        storage.read(uri)


def test_a_short_body_is_never_taken_for_the_object(bucket: str) -> None:
    storage, uri = Storage(QUICK), join(bucket, "x")
    storage.write(uri, b"whole content")
    info = storage.info(uri)
    for expectation in ({"size": info.size}, {"version": info.version}, {"size": info.size, "version": info.version}):
        filesystem = flaky(storage, uri, [lambda: b"whole"])
        assert storage.read(uri, **expectation) == b"whole content"  # type: ignore[arg-type]
        assert filesystem.calls == 2
        storage = Storage(QUICK)


def test_a_lost_reply_to_a_create_is_success(bucket: str) -> None:
    storage, uri = Storage(QUICK), join(bucket, "x")
    flaky(storage, uri, ["lost reply"])
    assert storage.write_once(uri, b"mine")
    assert Storage().read(uri) == b"mine"


def test_refusals_are_not_retried(bucket: str) -> None:
    storage, uri = Storage(RetryPolicy(attempts=9, first_delay=5)), join(bucket, "x")
    filesystem = flaky(storage, uri, [PermissionError("no"), FileNotFoundError("gone")])
    for kind in (AccessDenied, ObjectMissing):
        before = filesystem.calls
        with pytest.raises(kind):
            storage.read(uri)
        assert filesystem.calls == before + 1


def test_storage_travels_to_another_process(place: str) -> None:
    storage = Storage(QUICK)
    storage.write(join(place, "x"), b"1")
    again = pickle.loads(pickle.dumps(storage))
    assert again.retry == QUICK
    assert again.read(join(place, "x")) == b"1"
