"""Real parts shared by the tests: an S3 server, fresh buckets, one Ray cluster, one narrow network."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from demo.object_store import ObjectStore
from demo.object_store import object_store as run_object_store

# Two cores: more threads than that only fight, and narrow networks are faster with one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One SeaweedFS for the whole session."""
    with tempfile.TemporaryDirectory(prefix="weed-") as directory, run_object_store(Path(directory)) as store:
        yield store


@pytest.fixture
def s3_env(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Points this process, and every child it starts, at the session's S3 server."""
    for name, value in object_store.env.items():
        monkeypatch.setenv(name, value)
    return object_store.env


@pytest.fixture
def bucket(s3_env: dict[str, str]) -> str:
    """The URI of a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    filesystem.mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def ray_cluster(object_store: ObjectStore) -> Iterator[str]:
    """The address of one local Ray cluster (6 logical CPUs), to which this process is connected."""
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as directory:
        context = ray.init(
            address="local",
            num_cpus=6,
            include_dashboard=False,
            log_to_driver=True,
            logging_level="warning",
            object_store_memory=400 * 2**20,
            _temp_dir=directory,
            runtime_env={"env_vars": {**object_store.env, "OMP_NUM_THREADS": "1"}},
        )
        yield context.address_info["gcs_address"]
        ray.shutdown()
