"""Tests of progress messages, which count images and give rate and remaining time."""

from __future__ import annotations

import io

import pytest

from pipeline.segmentation import progress
from pipeline.segmentation.progress import Counts, ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_are_those_since_the_first_image(clock: list[float]) -> None:
    stream = io.StringIO()
    line = ProgressLine(1000, 100, stream)
    line.show(Counts())
    clock[0] += 60  # actors start
    line.show(Counts(1))
    clock[0] += 50
    line.show(Counts(101, 2))
    assert stream.getvalue().splitlines() == [
        "100/1000 images (10%), waiting for the first images",
        "101/1000 images (10%)",
        "201/1000 images (20%), 2 failed, 2.00 images/s, 6:40 left",
    ]


def test_plain_lines_keep_a_pace_and_the_last_always_comes(clock: list[float]) -> None:
    stream = io.StringIO()
    line = ProgressLine(50, stream=stream)
    for images in range(1, 51):
        clock[0] += 0.5
        line.show(Counts(images))
    line.show(Counts(50), final=True)
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 7 and lines[-1].startswith("50/50 images (100%)")


def test_a_terminal_shows_one_line_that_is_rewritten(clock: list[float]) -> None:
    stream = Terminal()
    line = ProgressLine(10, stream=stream)
    line.show(Counts(1))
    line.show(Counts(2))
    line.show(Counts(10), final=True)
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().count("\r") == 3


def test_a_run_of_nothing_is_complete() -> None:
    stream = io.StringIO()
    ProgressLine(0, stream=stream).show(Counts(), final=True)
    assert "0/0 images (100%)" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (3599.6, "1:00:00"), (90061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
