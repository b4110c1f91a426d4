"""SeaweedFS on an address that all hosts reach; the demo's listens on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from demo.object_store import ObjectStore
from demo.ports import free_ports
from demo.processes import child_process, wait_until

__all__ = ["object_store_at"]

_SERVERS = ("master", "volume", "filer", "s3")


@contextlib.contextmanager
def object_store_at(address: str, directory: Path, *, start_seconds: float = 60.0) -> Iterator[ObjectStore]:
    """Starts a server at `address` with its data in `directory` and stops it on leaving.

    Raises:
        RuntimeError: if it is not ready after `start_seconds`.
    """
    access_key, secret_key = "hosts", secrets.token_hex(16)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "hosts", "credentials": credentials, "actions": ["Admin"]}]}))
    # Its sockets in /tmp are named after ports, and other servers of this machine have theirs there too.
    ports = free_ports(2 * len(_SERVERS))
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = _command(address, directory, config, ports)
    with child_process(command, log=directory / "weed.log", env=env, grace=1.0) as process:
        port = ports[2 * _SERVERS.index("s3")]
        wait_until(lambda: _listens(address, port), what="SeaweedFS", seconds=start_seconds, process=process)
        yield ObjectStore(f"http://{address}:{port}", access_key, secret_key, process.pid)


def _command(address: str, data: Path, config: Path, ports: list[int]) -> list[str]:
    names = [name for server in _SERVERS for name in (f"{server}.port", f"{server}.port.grpc")]
    return [
        *(str(Path(sys.executable).parent / "weed"), "server", f"-dir={data}", f"-ip={address}", f"-ip.bind={address}"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=200", "-filer", "-s3", f"-s3.config={config}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0
