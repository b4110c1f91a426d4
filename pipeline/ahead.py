"""Ordered prefetching map over an iterable with a thread pool.

Threads process the next few items while the caller is busy with the current one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch_map"]

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
