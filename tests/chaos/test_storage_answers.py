"""Tests of answers that look right but are wrong, and of error codes whose meaning differs from their status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data import listing
from pipeline.data.listing import spooled, walk
from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, ObjectMissing, StorageError
from tests.chaos.fault_proxy import Fault, FaultProxy
from tests.shared import STORAGE

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02)
DATA = bytes(range(256)) * 40
LISTINGS = pytest.mark.parametrize("list_all", [Storage.list, lambda *place: list(walk(*place))], ids=["list", "walk"])
ListAll = Callable[[Storage, str], list]


@pytest.fixture
def storage(behind: str) -> Storage:
    return Storage(QUICK)


@LISTINGS
@pytest.mark.parametrize("size", [0, 60])
@pytest.mark.parametrize("after", [0, 1])
def test_a_listing_without_a_body_is_not_the_end(
    storage: Storage,
    behind: str,
    proxy: FaultProxy,
    list_all: ListAll,
    size: int,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The S3 library's parser takes status 200 without a body for an empty last page."""
    monkeypatch.setattr(listing, "_PAGE", 3)
    for number in range(8):
        STORAGE.write(join(behind, f"{number}"), b"x")
    proxy.inject(Fault("shorten", path="list-type=2", after=after, size=size))
    assert len(list_all(storage, behind)) == 8
    proxy.inject(Fault("shorten", path="list-type=2", times=None, size=size))
    with pytest.raises(StorageError, match="3 attempts"):
        list_all(storage, behind)


@LISTINGS
def test_a_bucket_that_cannot_be_asked_for_is_not_a_missing_one(
    storage: Storage, behind: str, proxy: FaultProxy, list_all: ListAll
) -> None:
    """Storage checks whether the bucket of an empty prefix exists, and that request may fail as well."""
    proxy.inject(Fault("status", path="(^/tests/?$)|location", times=2))
    assert list_all(storage, join(behind, "none")) == []


@pytest.mark.parametrize("place", ["s3", "file"])
def test_missing_objects_of_any_name_are_missing_objects(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A name that contains `bucket` does not make a missing object a missing bucket."""
    uri = join(request.getfixturevalue("behind") if place == "s3" else str(tmp_path), "my-bucket", "x")
    assert not Storage(QUICK).exists(uri)
    with pytest.raises(ObjectMissing):
        Storage(QUICK).read(uri)
    assert Storage(QUICK).write_once(uri, DATA)


def test_a_missing_bucket_is_named_as_such(behind: str) -> None:
    storage = Storage(QUICK)
    for request in (storage.read, storage.info, storage.list):
        with pytest.raises(StorageError, match="bucket does not exist") as refused:
            request("s3://no-such-place/x")
        assert not isinstance(refused.value, ObjectMissing), "a run would take it for a million missing images"


def test_a_create_beside_another_that_fails_is_made_again(storage: Storage, behind: str, proxy: FaultProxy) -> None:
    proxy.inject(Fault("status", method="PUT", status=409, code="ConditionalRequestConflict"))
    assert storage.write_once(join(behind, "x"), DATA)
    assert STORAGE.read(join(behind, "x")) == DATA and len(proxy.injected) == 1


@pytest.mark.parametrize("code", ["RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"])
def test_what_went_wrong_on_its_way_is_sent_again_in_spite_of_its_status(
    storage: Storage, behind: str, proxy: FaultProxy, code: str
) -> None:
    proxy.inject(Fault("status", method="PUT", status=400, code=code, times=2))
    storage.write(join(behind, "x"), DATA)
    assert STORAGE.read(join(behind, "x")) == DATA


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])
def test_expired_sessions_have_another_status_and_the_same_message(
    storage: Storage, behind: str, proxy: FaultProxy, code: str
) -> None:
    STORAGE.write(join(behind, "x"), DATA)
    proxy.inject(Fault("status", status=400, code=code, times=None))
    with pytest.raises(AccessDenied, match="check credentials"):
        storage.read(join(behind, "x"))
    assert len(proxy.injected) == 1
    # The answer to a HEAD request has no body that could give the reason.
    with pytest.raises(StorageError, match="check credentials"):
        storage.exists(join(behind, "x"))


def test_a_file_in_blocks_is_never_damaged(
    storage: Storage, behind: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_BLOCK", 4000)
    uri = join(behind, "list.csv")
    STORAGE.write(uri, DATA)
    proxy.inject(Fault("corrupt", method="GET", after=1, size=7))
    with spooled(storage, uri) as file:
        assert file.read() == DATA
    proxy.inject(*(Fault("corrupt", method="GET", after=after, size=after) for after in (0, 3)))
    with pytest.raises(StorageError, match="damaged"), spooled(storage, uri):
        pass


def test_files_whose_etag_is_no_digest_are_believed_the_second_time(
    storage: Storage, behind: str, proxy: FaultProxy
) -> None:
    STORAGE.write(join(behind, "x"), DATA)
    proxy.rewrite = lambda name, value: f'"{"0" * 32}"' if name.lower() == "etag" else value
    with spooled(storage, join(behind, "x")) as file:
        assert file.read() == DATA
