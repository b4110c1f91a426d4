"""Fixtures: an S3 server behind a proxy that breaks requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.object_store import ObjectStore
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.shared import STORAGE


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[FaultProxy]:
    with fault_proxy(object_store.endpoint) as running:
        yield running


@pytest.fixture
def behind(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an empty prefix that new storages of this process and its children reach through the proxy."""
    # The tests' own storage keeps its first connection, which does not pass the proxy.
    STORAGE.list(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    return bucket
