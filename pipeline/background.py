"""Work that blocks, such as a Ray job, in a thread of its own, so that its caller can watch the time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.errors import NoProgress

__all__ = ["Patience", "in_background"]

Item = TypeVar("Item")


class Patience:
    """The end of a wait in which nothing happens.

    Args:
        minutes: without a sign of life, from now on, or since the last one.
        awaited: what did not happen then, as a clause.
    """

    def __init__(self, minutes: float, awaited: str) -> None:
        self._minutes, self._awaited, self._heard = minutes, awaited, time.monotonic()

    def look(self, alive: bool, left: str = "") -> None:
        """Takes note of a sign of life.

        Args:
            alive: whether there was one since the last look.
            left: what is still awaited, a clause for the error.

        Raises:
            NoProgress: if the last one is too long ago.
        """
        now = time.monotonic()
        if alive:
            self._heard = now
        elif now - self._heard > 60 * self._minutes:
            raise NoProgress(
                f"{self._awaited} in {self._minutes:g} minutes{left and f'; {left}'}: look at the cluster with "
                "`ray status` (lost nodes, processes that cannot start), then submit the same command again"
            )


def in_background(work: Callable[[Callable[[Item], None]], Any], poll_seconds: float) -> Iterator[Item | None]:
    """Runs `work(put)` in a daemon thread.

    Yields:
        What it puts, as it comes, and None each time `poll_seconds` pass without anything.

    Raises:
        Exception: what the work raises, where that reaches the caller's loop.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            work(lambda item: items.put(("item", item)))
            items.put(("end", None))
        except Exception as error:
            items.put(("error", error))

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
