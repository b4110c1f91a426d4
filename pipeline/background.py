"""Work that blocks, such as a Ray job, in a thread of its own, so that its caller can watch the time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

__all__ = ["in_background"]

Item = TypeVar("Item")


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
