"""Tests of storage faults: `Storage` returns whole objects, or raises an error that states the reason."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data import filesystems, listing
from pipeline.data.listing import spooled, walk
from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, ObjectChanged, ObjectMissing, StorageError
from tests.chaos.fault_proxy import Fault, FaultProxy
from tests.shared import STORAGE

QUICK = RetryPolicy(attempts=3, first_delay=0.01, max_delay=0.02)
DATA = bytes(range(256)) * 40


@pytest.fixture
def storage(behind: str) -> Storage:
    return Storage(QUICK)


def test_without_faults_a_proxy_changes_nothing(storage: Storage, behind: str, proxy: FaultProxy) -> None:
    uri = join(behind, "a b+%25ü.bin")
    assert storage.write_once(uri, DATA) and not storage.write_once(uri, b"other")
    assert storage.read(uri) == DATA == STORAGE.read(uri)
    assert [info.uri for info in storage.list(behind)] == [uri]
    storage.delete(uri)
    assert not storage.exists(uri) and not proxy.injected and len(proxy.requests) > 5


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status"),
        Fault("status", status=500, code="InternalError"),
        Fault("status", status=429, code="TooManyRequests"),
        Fault("reset"),
        Fault("reset", size=100),
        Fault("truncate", size=100),
        Fault("shorten", size=100),
        Fault("shorten", size=0),
        Fault("corrupt", size=100),
        Fault("drop_reply"),
        Fault("latency", seconds=0.2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.size}",
)
@pytest.mark.parametrize("expect", [False, True], ids=["plain", "versioned"])
def test_a_read_is_whole_or_tried_again(
    storage: Storage, behind: str, proxy: FaultProxy, fault: Fault, expect: bool
) -> None:
    uri = join(behind, "x")
    STORAGE.write(uri, DATA)
    info = STORAGE.info(uri)
    proxy.inject(Fault(**{**fault.__dict__, "method": "GET", "times": 2}))
    expected = {"size": info.size, "version": info.version} if expect else {}
    assert storage.read(uri, **expected) == DATA  # type: ignore[arg-type]
    assert len(proxy.injected) == (1 if fault.kind == "latency" else 2) or fault.kind == "latency"


@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "shorten", "corrupt", "drop_reply"])
def test_what_does_not_pass_is_an_error_with_the_number_of_attempts(
    storage: Storage, behind: str, proxy: FaultProxy, kind: str
) -> None:
    uri = join(behind, "x")
    STORAGE.write(uri, DATA)
    proxy.inject(Fault(kind, method="GET", times=None, size=100))  # type: ignore[arg-type]
    with pytest.raises(StorageError, match=r"x.*3 attempts"):
        storage.read(uri)
    # On a connection that was already open, the HTTP client itself repeats the request. Bytes that contradict their
    # version are requested twice, to learn whether that version is a digest.
    assert len(proxy.injected) == (6 if kind in ("drop_reply", "corrupt") else 3)


@pytest.mark.parametrize("kind", ["status", "reset", "drop_reply", "truncate"])
def test_a_create_whose_reply_is_lost_is_ours(storage: Storage, behind: str, proxy: FaultProxy, kind: str) -> None:
    uri = join(behind, "x")
    proxy.inject(Fault(kind, method="PUT", times=2))  # type: ignore[arg-type]
    assert storage.write_once(uri, DATA)
    assert STORAGE.read(uri) == DATA and len(proxy.injected) >= 1


def test_a_create_whose_reply_is_lost_is_not_ours_if_another_was_first(
    storage: Storage, behind: str, proxy: FaultProxy
) -> None:
    uri = join(behind, "x")
    STORAGE.write(uri, b"theirs")
    proxy.inject(Fault("drop_reply", method="PUT"))
    assert not storage.write_once(uri, DATA)
    assert STORAGE.read(uri) == b"theirs"


@pytest.mark.parametrize("status", [401, 403])
def test_expired_credentials_are_told_at_once_and_without_secrets(
    storage: Storage, behind: str, proxy: FaultProxy, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    uri = join(behind, "x")
    STORAGE.write(uri, DATA)
    proxy.inject(Fault("status", status=status, code="ExpiredToken", times=None))
    requests: list[Callable[[], object]] = [
        lambda: storage.read(uri),
        lambda: storage.write_once(join(behind, "y"), DATA),
        lambda: storage.list(behind),
        lambda: list(walk(storage, behind)),
    ]
    for request in requests:
        before = len(proxy.requests)
        with caplog.at_level(logging.DEBUG, "pipeline"), pytest.raises(AccessDenied, match="credentials") as refused:
            request()
        assert len(proxy.requests) <= before + 2, "asked again, although the answer will be the same"
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(refused.value) + caplog.text


def test_objects_of_any_size_come_with_one_request(storage: Storage, behind: str, proxy: FaultProxy) -> None:
    """There is no multipart upload, so none can be left unfinished."""
    size = 60 * 2**20
    assert storage.write_once(join(behind, "x"), bytes(size))
    storage.write(join(behind, "y"), bytes(size))
    assert STORAGE.info(join(behind, "x")).size == size
    assert [request.method for request in proxy.requests] == ["PUT", "PUT"]


def test_a_missing_object_is_not_asked_for_again(storage: Storage, behind: str, proxy: FaultProxy) -> None:
    with pytest.raises(ObjectMissing):
        storage.read(join(behind, "none"))
    assert len(proxy.requests) <= 2


@pytest.mark.parametrize("list_all", [Storage.list, lambda *place: list(walk(*place))], ids=["list", "walk"])
def test_a_listing_is_never_short(
    storage: Storage, behind: str, proxy: FaultProxy, list_all: Callable[..., list], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_PAGE", 3)
    for number in range(8):
        STORAGE.write(join(behind, f"{number}"), b"x")
    for kind in ("status", "truncate", "reset", "drop_reply"):
        proxy.inject(Fault(kind, path="list-type=2", after=1, size=100))  # type: ignore[arg-type]
        assert len(list_all(storage, behind)) == 8
        proxy.clear()
    proxy.inject(Fault("status", path="list-type=2", after=0, times=None))
    with pytest.raises(StorageError, match="3 attempts"):
        list_all(storage, behind)


def test_a_file_in_blocks_is_whole(
    storage: Storage, behind: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_BLOCK", 4000)
    uri = join(behind, "list.csv")
    STORAGE.write(uri, DATA)
    for number, kind in enumerate(("truncate", "shorten", "reset", "status")):
        proxy.inject(Fault(kind, method="GET", after=number % 3, size=7))  # type: ignore[arg-type]
        with spooled(storage, uri) as file:
            assert file.read() == DATA
    assert len(proxy.injected) == 4


def test_a_silent_server_is_given_up_within_the_stated_time(
    behind: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "READ_TIMEOUT", 1)
    uri = join(behind, "x")
    STORAGE.write(uri, DATA)
    proxy.inject(Fault("stall", method="GET", times=None, seconds=300))
    started = time.monotonic()
    with pytest.raises(StorageError, match="2 attempts"):
        Storage(RetryPolicy(attempts=2, first_delay=0.01)).read(uri)
    assert time.monotonic() - started < 60, "two silences of a second each, on cores that do much else"
    proxy.clear()
    assert Storage(QUICK).read(uri) == DATA


def test_an_object_replaced_between_listing_and_reading_is_not_read(storage: Storage, behind: str) -> None:
    uri = join(behind, "x")
    STORAGE.write(uri, DATA)
    before = STORAGE.info(uri)
    STORAGE.write(uri, DATA[::-1])
    with pytest.raises(ObjectChanged, match="replaced"):
        storage.read(uri, size=before.size, version=before.version)


def test_where_etags_are_no_digests_objects_are_read_twice_once(
    storage: Storage, behind: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets with key-based encryption have such ETags.

    The first object reveals it, and later objects are checked by their length alone.
    """
    for name in ("x", "y", "z"):
        STORAGE.write(join(behind, name), DATA)
    proxy.rewrite = lambda name, value: f'"{"0" * 32}"' if name.lower() == "etag" else value
    assert storage.read(join(behind, "x")) == DATA
    gets = [request for request in proxy.requests if request.method == "GET"]
    assert len(gets) == 2
    assert storage.read(join(behind, "y"), version="0" * 32) == DATA
    proxy.inject(Fault("shorten", method="GET", size=99))
    assert storage.read(join(behind, "z")) == DATA
    assert len([request for request in proxy.requests if request.method == "GET"]) == 5


def test_requests_of_another_year_are_refused_with_the_servers_reason(behind: str) -> None:
    """S3 refuses signatures of a clock that is far off; no other part of this project depends on a clock."""
    code = (
        "import datetime, botocore.auth, botocore.compat as c, sys\n"
        "real = c.get_current_datetime\n"
        "late = lambda remove_tzinfo=True: real(remove_tzinfo) + datetime.timedelta(days=400)\n"
        "for module in list(sys.modules.values()):\n"
        "    if getattr(module, 'get_current_datetime', None) is real: module.get_current_datetime = late\n"
        "from pipeline.data.storage import Storage\n"
        "from pipeline.errors import AccessDenied\n"
        "try: Storage().list(sys.argv[1])\n"
        "except AccessDenied as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, behind], capture_output=True, text=True, timeout=60, check=True)
    assert "access denied" in done.stdout and "time" in done.stdout.lower(), done


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A process whose files are limited to 4,096 bytes sees a write as on a full disk; this needs no root."""
    code = (
        "import resource, signal, sys, errno\n"
        "from pipeline.data import atomic_write\n"
        "from pipeline.data.storage import Storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from pipeline.data.storage import RetryPolicy\n"
        "try: Storage(RetryPolicy(2, 0.01)).write_once(sys.argv[1] + '/part', bytes(10000))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(Storage().write_once(sys.argv[1] + '/small', bytes(1000)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "StorageError" in done.stdout and "True" in done.stdout, done
    assert [path.name for path in tmp_path.rglob("*")] == ["small"]
