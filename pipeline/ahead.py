"""Work on the next few items while the caller is busy with this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    name: str, work: Callable[[Item], Result], items: Iterable[Item], *, count: int, threads: int
) -> Generator[tuple[Item, Future[Result]]]:
    """Does `work` on items in threads, and yields each item, in order, with what it came to, or is about to.

    Args:
        name: of the threads.
        work: done on several items at a time, but for a `count` of 0.
        items: taken as needed, in the caller's thread.
        count: items that may be taken beyond the one that is yielded.
        threads: that work.
    """
    with ThreadPoolExecutor(threads, name) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > count:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        except BaseException:
            # The caller has left, or there is no next item: what has not begun is wanted no more.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
