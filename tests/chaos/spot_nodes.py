"""Nodes beside the head that are added, drained and killed, one change at a time in the background."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import psutil

from demo.cluster import Cluster
from tests.job_helpers import Node, joined_node

__all__ = ["SpotNodes"]


class SpotNodes:
    """Up to two nodes of one CPU beside the head of a cluster, usually one or two.

    Args:
        cluster: Cluster of the nodes.
        folder: Folder for their output.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._nodes: list[tuple[Node, contextlib.ExitStack]] = []
        self._numbers = itertools.count(1)
        self._pool = ThreadPoolExecutor(1)
        self._change: Future[None] | None = None

    def __enter__(self) -> SpotNodes:
        self._add()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        for _, stack in self._nodes:
            stack.close()

    def add(self) -> bool:
        """Add a node; return False if there are two, or another change is under way."""
        return len(self._nodes) < 2 and self._start(self._add)

    def kill(self) -> bool:
        """Kill the raylet of the oldest node; return False if there is none, or another change is under way."""
        return bool(self._nodes) and self._start(self._kill)

    def preempt(self, notice: float) -> bool:
        """Drain the oldest node, and kill all its processes `notice` seconds later; return False as above."""
        return bool(self._nodes) and self._start(lambda: self._preempt(notice))

    def _start(self, change: Callable[[], None]) -> bool:
        """Start a change in the background unless one is under way; raise the error of the change before it."""
        if self._change is not None:
            if not self._change.done():
                return False
            self._change.result()
        self._change = self._pool.submit(change)
        return True

    def _add(self) -> None:
        # Each node has an address of its own, because the cluster still lists a lost node for seconds.
        address = f"127.0.{next(self._numbers)}.2"
        stack = contextlib.ExitStack()
        try:
            node = stack.enter_context(joined_node(self._cluster, self._folder, cpus=1, address=address))
        except RuntimeError as error:
            # A busy machine may fail to start a node in time; the next fault of this kind tries again.
            print(error, flush=True)
            return
        self._nodes.append((node, stack))

    def _kill(self) -> None:
        self._remove(self._nodes[0][0].raylets())

    def _preempt(self, notice: float) -> None:
        node = self._nodes[0][0]
        node.announce_preemption(max(1, round(2 * notice)))
        time.sleep(notice)
        raylets = node.raylets()
        self._remove([each for raylet in raylets for each in (raylet, *raylet.children(recursive=True))])

    def _remove(self, processes: list[psutil.Process]) -> None:
        """Kill processes of the oldest node, and add another node if it was the only one."""
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, stack = self._nodes.pop(0)
        stack.close()
        if not self._nodes:
            self._add()
