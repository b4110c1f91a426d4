"""Tests of slow, silent or full storage: every request ends in bounded time and leaves nothing half written."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.data import filesystems
from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, StorageError
from tests.chaos.fault_proxy import Fault, FaultProxy

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limits of storage, which are a minute, to seconds."""
    monkeypatch.setattr(filesystems, "CONNECT_TIMEOUT", 1)
    monkeypatch.setattr(filesystems, "READ_TIMEOUT", 1)
    monkeypatch.setattr(filesystems, "SLOWEST", 20_000_000)


# Seconds of a server's silence; a client that waits longer than half of them is waiting for the server's end.
_PATIENCE = 120


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Start a server that handles each connection with the given function, and yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=behave, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def silent(client: socket.socket) -> None:
    """Do nothing, like a stopped process; the kernel still fills its buffers."""
    time.sleep(_PATIENCE)


def takes_nothing(client: socket.socket) -> None:
    """Ask for the body, and read none of it."""
    client.recv(1 << 16)
    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    time.sleep(_PATIENCE)


def drips(client: socket.socket) -> None:
    """Send a little at a time, never silent for long and never finished."""
    client.recv(1 << 16)
    with contextlib.suppress(OSError):
        client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nETag: "0"\r\n\r\n')
        while True:
            client.sendall(b"x")
            time.sleep(0.2)


def half(client: socket.socket) -> None:
    """Send half of the answer, then fall silent."""
    client.recv(1 << 16)
    client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nETag: "0"\r\n\r\n0123')
    time.sleep(_PATIENCE)


@pytest.mark.parametrize(
    ("behave", "size"),
    [(silent, 10), (silent, 20_000_000), (takes_nothing, 20_000_000), (drips, None), (half, None), (silent, None)],
    ids=["put", "large-put", "put-into-nothing", "get-drips", "get-ends-in-the-middle", "get"],
)
def test_every_request_ends(
    behave: Callable[[socket.socket], None],
    size: int | None,
    s3_env: dict[str, str],
    short: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The S3 library has no time limit for a server that never asks for the body, reads none of it, or drips."""
    failures: list[Exception] = []

    def request() -> None:
        try:
            storage = Storage(ONCE)
            storage.read("s3://tests/x") if size is None else storage.write("s3://tests/x", bytes(size))
        except StorageError as error:
            failures.append(error)

    if behave is takes_nothing:
        # A limit that grows with the size would be too long here, so the kernel has to detect the dead connection.
        monkeypatch.setattr(filesystems, "SLOWEST", 1000)
    with server(behave) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        thread = threading.Thread(target=request, daemon=True)
        thread.start()
        thread.join(timeout=_PATIENCE / 2)
        assert not thread.is_alive(), "still waiting"
    assert len(failures) == 1 and "check the endpoint and the network (1 attempts)" in str(failures[0])


def test_a_burst_of_refusals_is_survived_by_the_policy_of_a_run(behind: str, proxy: FaultProxy) -> None:
    """The policy is that of production: six attempts with growing pauses, which spread many clients over time."""
    proxy.inject(Fault("status", method="PUT", times=3))
    started = time.monotonic()
    assert Storage().write_once(join(behind, "x"), b"x")
    assert 0.5 + 1 + 2 <= time.monotonic() - started < 30


FULL = """
import errno, pathlib, sys
from pipeline.data.storage import RetryPolicy, Storage
from pipeline.errors import StorageError
folder = pathlib.Path(sys.argv[1])
for name, size in (("big", 3_000_000), ("small", 1000)):
    try: print(Storage(RetryPolicy(1)).write_once(f"{folder}/{name}", bytes(size)))
    except StorageError as error: print(error)
print(sorted(path.name for path in folder.rglob("*")))
"""


def _in_own_mounts(script: str, folder: Path) -> str:
    command = ["unshare", "--mount", "--map-root-user", "sh", "-ec", f'{script}; exec "$0" -c "$2" "$1"']
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, sys.executable, str(folder), FULL], capture_output=True, text=True, timeout=60, cwd=root
    )
    if "Operation not permitted" in done.stderr or "ermission denied" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("unshare") is None, reason="`unshare` is not installed")
class TestMounts:
    """Tests with file systems mounted in a process of its own."""

    def test_a_disk_that_is_full(self, tmp_path: Path) -> None:
        said = _in_own_mounts('mount -t tmpfs -o size=1m none "$1"', tmp_path)
        assert "No space left on device; free space or choose another output" in said
        assert "True" in said and "['small']" in said, "nothing half written, and room for what fits"

    def test_a_disk_that_is_read_only(self, tmp_path: Path) -> None:
        said = _in_own_mounts('mount -t tmpfs -o ro none "$1"', tmp_path)
        assert said.count("Read-only file system; free space or choose another output") == 2 and "[]" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessDenied, match="permissions of the file"):
        Storage(ONCE).write(str(tmp_path / "x"), b"x")
