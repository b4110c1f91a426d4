"""Tests of the scale benchmark in small, and of the figures computed from its measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.scale import arithmetic, measurements
from benchmarks.scale.remote import Remote, credentials, served


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """Start the mock bucket."""
    with served() as remote:
        for name, value in credentials(remote.url).items():
            monkeypatch.setenv(name, value)
        yield remote


def test_a_submission_lists_everything_and_writes_its_manifest_once(server: Remote) -> None:
    server.make_up("images/", 2000, measurements.NAMES)
    first = measurements.submission(2000)
    assert (first["shards"], first["manifest_files"], first["requests"]["PUT"]) == (32, 1, 3)
    server.make_up("out/predictions/", 31, first["part_format"])
    assert measurements.submission(2000)["requests"]["PUT"] == 2


def test_an_image_of_a_list_is_looked_up(server: Remote) -> None:
    server.make_up("images/", 50, measurements.NAMES)
    assert 50 <= measurements.submission_of_list(50)["requests"]["HEAD"] < 60


def test_parts_are_committed(server: Remote) -> None:
    server.make_up("images/", 3, measurements.NAMES)
    assert measurements.parts(3, 1)["part_bytes"] > 1000
    assert measurements.commit(3, 1)["requests"] == {"GET": 4, "LIST": 1, "PUT": 7}


def test_requests_follow_a_formula_or_are_refused() -> None:
    def run(images: int, shard_images: int, more: int = 0) -> dict[str, Any]:
        count = 7 + 2 * images + images // shard_images + more
        return {"images": images, "shard_images": shard_images, "requests": {"actor": {"GET": count}}}

    runs = [run(64, 16), run(64, 4), run(32, 16), run(48, 8)]
    assert arithmetic.formula(runs) == {"actor": {"GET": {"constant": 7, "per_image": 2, "per_shard": 1}}}
    with pytest.raises(ValueError, match="GET"):
        arithmetic.formula([*runs[:3], run(48, 8, more=1)])


def test_what_takes_too_long_is_extrapolated_and_says_so() -> None:
    def measure(size: int) -> dict[str, Any]:
        return {"plan": {"seconds": 5 + size / 10, "peak_mib": 800, "requests": {"GET": 3, "LIST": size}}}

    found = dict(arithmetic.by_size([1000, 10, 100], measure, limit=60))
    assert (found[10], found[100]) == (measure(10), measure(100))
    expected = {"seconds": 105.0, "peak_mib": None, "requests": {"GET": 3, "LIST": 1000}}
    assert found[1000] == {"plan": expected, "extrapolated_from": [10, 100]}


def test_a_billion_images_are_in_proportion_to_a_commit() -> None:
    assert arithmetic.shard_size(1000, {"parts": 100, "seconds": 36.0}) == {"parts": 10**6, "commit_hours": 100.0}
