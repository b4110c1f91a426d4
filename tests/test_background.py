"""Tests of work in a background thread: its results, and their timing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pipeline.concurrency import StallDetector, iterate_in_background
from pipeline.errors import IncompleteRun, NoProgress, StorageError, error_summary, known_cause


def test_items_come_in_order_and_silence_as_none() -> None:
    go_on = threading.Event()

    def work(put: Callable[[int], None]) -> None:
        put(1)
        go_on.wait(20)
        put(2)

    seen = []
    for item in iterate_in_background(work, 0.02):
        seen.append(item)
        if item is None:
            go_on.set()
    assert [item for item in seen if item is not None] == [1, 2] and None in seen


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_reaches_the_caller_after_what_came_before_it(error: type[BaseException]) -> None:
    def work(put: Callable[[int], None]) -> None:
        put(1)
        raise error("broken")

    iterator = iterate_in_background(work, 5.0)
    assert next(iterator) == 1
    with pytest.raises(error, match="broken"):
        # After five seconds without the error, the iterator would yield None.
        next(iterator)


class Wrapped(Exception):
    """Error that wraps a worker's error, as Ray's errors do."""

    def __init__(self, cause: Exception | None = None, failures: dict[int, Exception] | None = None) -> None:
        self.cause = cause
        self.worker_failures = failures or {}


def test_our_own_error_is_found_in_any_wrapping() -> None:
    own = StorageError("the bucket is away")
    assert known_cause(Wrapped(Wrapped(own))) is own
    assert known_cause(Wrapped(failures={0: RuntimeError("peer"), 1: Wrapped(own)})) is own
    assert known_cause(Wrapped(RuntimeError("another's"))) is None


def test_the_last_line_of_a_long_error_stays_short() -> None:
    assert error_summary(RuntimeError("first\nsecond")) == "second"
    assert error_summary(IncompleteRun()) == "IncompleteRun"
    assert len(error_summary(RuntimeError("word " * 500))) <= 240


def test_patience_ends_after_silence_and_no_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stall = StallDetector(2, "no map was finished")
    for alive, seconds in ((False, 119), (True, 1), (False, 120)):
        now[0] += seconds
        stall.check(alive)
    now[0] += 1
    with pytest.raises(NoProgress, match=r"no map was finished in 2 minutes; 3 are awaited: look at the cluster"):
        stall.check(False, "3 are awaited")
