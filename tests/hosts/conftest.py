"""Fixtures: a network of hosts, and an S3 server that all of them reach."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.object_store import ObjectStore
from demo.object_store import object_store as run_object_store
from tests.hosts.namespaces import Network, network, private_network

HOSTS = ("head", "one", "two", "three")


@pytest.fixture(scope="session")
def hosts() -> Iterator[Network]:
    """Make four hosts: a head, two for training, and a spare one."""
    if not private_network():
        pytest.exit("these tests lay cables: run them in a network of their own, with make hosts", returncode=2)
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder, network(HOSTS, Path(folder)) as made:
        yield made


@pytest.fixture(scope="session")
def object_store(hosts: Network) -> Iterator[ObjectStore]:
    """Start one SeaweedFS at the switch; it replaces the S3 server of the other tests' bucket fixtures."""
    with (
        tempfile.TemporaryDirectory(prefix="weed-") as folder,
        run_object_store(Path(folder), address=hosts.address) as store,
    ):
        yield store
