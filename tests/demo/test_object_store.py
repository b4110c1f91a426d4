"""Tests of the embedded S3 server: real credentials, loopback only, stopped with its context."""

from __future__ import annotations

import uuid
from pathlib import Path

import psutil
import pytest
import s3fs

from demo.object_store import ObjectStore
from demo.object_store import object_store as run_object_store


def client(store: ObjectStore, secret: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key=store.access_key,
        secret=secret,
        endpoint_url=store.endpoint,
        skip_instance_cache=True,
        client_kwargs={"region_name": "us-east-1"},
    )


def test_objects_come_back_and_wrong_credentials_do_not_work(object_store: ObjectStore) -> None:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    files = client(object_store, object_store.secret_key)
    files.mkdir(bucket)
    files.pipe_file(f"{bucket}/a/b.bin", b"\x00\xff" * 1000)
    assert files.cat_file(f"{bucket}/a/b.bin") == b"\x00\xff" * 1000
    with pytest.raises(PermissionError):
        client(object_store, "wrong").cat_file(f"{bucket}/a/b.bin")


def test_every_port_is_on_loopback_and_out_of_the_way(object_store: ObjectStore) -> None:
    family = [psutil.Process(object_store.pid), *psutil.Process(object_store.pid).children(recursive=True)]
    listening = {c.laddr for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening
    for address in listening:
        assert address.ip in ("127.0.0.1", "::1"), address
        assert 20000 <= address.port < 32768, address


def test_two_servers_live_side_by_side_and_end(
    object_store: ObjectStore, s3_env: dict[str, str], tmp_path: Path
) -> None:
    with run_object_store(tmp_path) as second:
        files = client(second, second.secret_key)
        files.mkdir("own-bucket")
        assert "own-bucket" in files.ls("")
        assert second.endpoint != object_store.endpoint
    assert not psutil.pid_exists(second.pid)
