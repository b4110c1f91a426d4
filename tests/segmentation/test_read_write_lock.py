"""Tests of shared and exclusive access."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pipeline.segmentation.supervision import ReadWriteLock


def test_several_are_together_and_nobody_with_one_who_is_alone() -> None:
    turns = ReadWriteLock()
    met = threading.Barrier(3)
    go_on = threading.Event()
    inside = list[str]()

    def together() -> None:
        with turns.shared():
            met.wait(20)
            assert go_on.wait(20) and not inside

    def alone() -> None:
        with turns.exclusive():
            assert not inside
            inside.append("alone")
            inside.remove("alone")

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(together), pool.submit(together)]
        met.wait(20)
        running += [pool.submit(alone), pool.submit(alone)]
        go_on.set()
        for work in running:
            work.result(20)


def test_who_wants_to_be_alone_is_not_overtaken() -> None:
    turns = ReadWriteLock()
    order = list[str]()
    first_in = threading.Event()
    first_may_go = threading.Event()

    def first() -> None:
        with turns.shared():
            first_in.set()
            assert first_may_go.wait(20)

    def alone() -> None:
        with turns.exclusive():
            order.append("alone")

    def late() -> None:
        with turns.shared():
            order.append("late")

    with ThreadPoolExecutor(3) as pool:
        running: list[Future[None]] = [pool.submit(first)]
        assert first_in.wait(20)
        running.append(pool.submit(alone))
        while not turns._wanting:
            assert not running[1].done()
        running.append(pool.submit(late))
        first_may_go.set()
        for work in running:
            work.result(20)
    assert order == ["alone", "late"]


def test_errors_leave_the_door_open() -> None:
    turns = ReadWriteLock()
    for way in (turns.shared, turns.exclusive, turns.shared):
        with pytest.raises(RuntimeError), way():
            raise RuntimeError
