"""Tests that a missing or lost cluster gives one sentence and exit code 3 instead of a stack trace.

Ray itself would try to connect for minutes, and abort the process when the head is lost.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest
import ray

from jobs import segment_bucket
from pipeline.ray_backend.entry_points import await_silence

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


def test_a_head_that_answers_is_awaited_until_it_is_silent() -> None:
    asked: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"

        def end_with_the_tenth_question() -> bool:
            asked.append(None)
            if len(asked) == 10:
                head.close()
            return True

        assert await_silence(address, 0.1, end_with_the_tenth_question)
        assert len(asked) > 10


def test_a_process_that_has_disconnected_does_not_watch_the_head() -> None:
    assert not await_silence("127.0.0.1:1", 60, lambda: False)
