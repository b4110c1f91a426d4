"""Background execution of blocking work, such as a Ray job.

The work runs in its own thread, so that the caller can check timeouts meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.errors import NoProgress

__all__ = ["StallDetector", "iterate_in_background"]

Item = TypeVar("Item")


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
        Exception: If `work` raises; the same exception is raised in the caller's loop.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            work(lambda item: items.put(("item", item)))
            items.put(("end", None))
        except Exception as error:
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
