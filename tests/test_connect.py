"""Tests that a missing cluster gives one sentence and exit code 3 instead of a stack trace.

Ray itself would try to connect for minutes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import ray

from jobs import segment_bucket

INPUTS = ["segment_bucket.py", "--images", "in", "--checkpoint", "network.safetensors", "--output", "out"]


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("address", "failure", "sentence"),
    [
        (
            "10.0.0.7:6379",
            ConnectionError("Version 3.\nFailed to connect to Ray cluster at 10.0.0.7:6379"),
            "error: no Ray cluster answers at 10.0.0.7:6379: Failed to connect to Ray cluster at 10.0.0.7:6379. ",
        ),
        (
            None,
            Exception("The current node timed out during startup."),
            "error: Ray did not start on this machine: The current node timed out during startup. ",
        ),
    ],
)
def test_a_cluster_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    address: str | None,
    failure: Exception,
    sentence: str,
) -> None:
    def init(given: str, **options: object) -> None:
        assert given == (address or "local")
        raise failure

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("sys.argv", INPUTS)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert segment_bucket.main() == 3
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence) and len(captured.err.splitlines()) == 1
