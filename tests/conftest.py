"""Fixtures with real services shared by all tests: an S3 server, empty prefixes of a bucket, one Ray cluster."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, settings

from demo.cluster import Cluster, local_cluster
from demo.object_store import ObjectStore
from demo.object_store import object_store as run_object_store
from demo.processes import heed_interrupts

# The tests run on two cores: more threads would only compete, and narrow networks are faster with one.
heed_interrupts()
torch.set_num_threads(1)
# No deadline for one example, since a busy machine may be slow; pytest's own time limit bounds the whole test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# Folders and modules whose tests train, label or damage many images, draw scenes, or start processes.
_SLOW = ("chaos/", "compatibility/", "demo/", "training/test_trainer", "training/test_loop", "training/test_own_")
_SLOW += ("training/test_dry_run", "training/test_run", "model/test_host_memory", "segmentation/test_watchdog")
_SLOW += (
    "results/report/",
    "results/comparison/test_compare",
    "segmentation/test_streams",
    "segmentation/test_segmenter",
)
_SLOW += ("segmentation/test_run", "model/test_vgg16", "model/test_dense_prediction", "model/test_preparation")
_SLOW += ("data/test_datasets_coco.py::test_memory", "data/annotations/test_coco.py::test_any_wrong_value")
_SLOW += ("data/annotations/test_label_studio.py::test_a_megapixel", "data/annotations/test_paint.py::test_neither")
_SLOW += ("model/test_checkpoint.py::test_loading", "model/test_fused_upsample_argmax.py::test_who")
_SLOW += ("training/test_sampling.py::test_another", "training/preparation/test_survey.py::test_a_dry")
_SLOW += ("test_cli", "test_dry_run", "test_library", "test_usage", "test_active_learning", "test_scale", "test_import")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a real service or take long, so that `make check` leaves them out."""
    for item in items:
        if {"object_store", "browser"} & {*getattr(item, "fixturenames", ())} or "[s3" in item.name:
            item.add_marker("services")
        if item.nodeid.removeprefix("tests/").startswith(_SLOW):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """Start one SeaweedFS for the whole session."""
    with tempfile.TemporaryDirectory(prefix="weed-") as directory, run_object_store(Path(directory)) as store:
        yield store


@pytest.fixture
def s3_env(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Point this process, and every child that it starts, at the session's S3 server."""
    for name, value in object_store.env.items():
        monkeypatch.setenv(name, value)
    return object_store.env


@pytest.fixture(scope="session")
def _shared_bucket(object_store: ObjectStore) -> str:
    """Make one bucket for all tests, since SeaweedFS takes a second to grow the volumes of a new one."""
    client = {"endpoint_url": object_store.env["AWS_ENDPOINT_URL"]}
    filesystem = fsspec.filesystem(
        "s3",
        key=object_store.env["AWS_ACCESS_KEY_ID"],
        secret=object_store.env["AWS_SECRET_ACCESS_KEY"],
        client_kwargs=client,
        skip_instance_cache=True,
    )
    filesystem.mkdir("tests")
    return "s3://tests"


@pytest.fixture
def bucket(s3_env: dict[str, str], _shared_bucket: str) -> str:
    """Return the URI of a new, empty prefix on the S3 server."""
    return f"{_shared_bucket}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def cluster(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start one Ray cluster of 6 logical CPUs whose jobs reach the S3 server."""
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in object_store.env.items():
                patch.setenv(name, value)
            running = stack.enter_context(local_cluster(log, cpus=6))
        yield running
