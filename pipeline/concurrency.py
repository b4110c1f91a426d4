"""Threads: an ordered prefetching map, blocking work in the background, and a timeout that progress restarts."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.errors import NoProgress

__all__ = ["StallDetector", "iterate_in_background", "prefetch_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    name: str, work: Callable[[Item], Result], items: Iterable[Item], *, count: int, threads: int
) -> Generator[tuple[Item, Future[Result]]]:
    """Apply `work` to items in threads and yield each item, in order, with the future of its result.

    Args:
        name: Prefix of the thread names.
        work: Function of one item. Its calls overlap, unless `count` is 0 and the caller waits for each result.
        items: Input items, which the caller's thread takes as they are needed.
        count: Number of items that may be taken beyond the yielded one.
        threads: Number of worker threads.

    Yields:
        The item and the future of its result, which may still be running.
    """
    with ThreadPoolExecutor(threads, name) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                # Wait for the caller before more than `count` further items are taken: this bounds memory.
                if len(waiting) > count:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        except BaseException:
            # The caller closed the generator, or `items` raised: cancel the work that has not started.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class StallDetector:
    """Timeout of a wait, which every sign of progress restarts.

    Args:
        minutes: Longest time without progress, in minutes, counted from construction or from the last sign of progress.
        awaited: Clause for the error that names the missing event, such as `no image was finished`.
    """

    def __init__(self, minutes: float, awaited: str) -> None:
        self._minutes = minutes
        self._awaited = awaited
        self._heard = time.monotonic()

    def check(self, alive: bool, left: str = "") -> None:
        """Restart the timeout after progress; otherwise raise if it has expired.

        Args:
            alive: Whether there was a sign of progress since the last call.
            left: Clause for the error that names the remaining work; empty to omit it.

        Raises:
            NoProgress: If the last sign of progress is more than `minutes` ago.
        """
        now = time.monotonic()
        if alive:
            self._heard = now
        elif now - self._heard > 60 * self._minutes:
            raise NoProgress(
                f"{self._awaited} in {self._minutes:g} minutes{left and f'; {left}'}: look at the cluster with "
                "`ray status` (lost nodes, processes that cannot start), then submit the same command again"
            )


def iterate_in_background(work: Callable[[Callable[[Item], None]], Any], poll_seconds: float) -> Iterator[Item | None]:
    """Run `work(put)` in a daemon thread and yield the items that it puts.

    Args:
        work: Blocking function. It calls its argument `put` once for each item.
        poll_seconds: Longest wait for an item, in seconds, before None is yielded.

    Yields:
        Each item in the order of the `put` calls, and None whenever `poll_seconds` pass without an item.

    Raises:
        BaseException: If `work` raises, be it SystemExit; the same exception is raised in the caller's loop.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            work(lambda item: items.put(("item", item)))
            items.put(("end", None))
        except BaseException as error:
            # Without a last entry in the queue, the caller would wait forever.
            items.put(("error", error))

    # A daemon thread does not keep the process alive if the caller leaves before the work ends.
    threading.Thread(target=run, name="background", daemon=True).start()
    while True:
        try:
            kind, value = items.get(timeout=poll_seconds)
        except queue.Empty:
            yield None
            continue
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value
