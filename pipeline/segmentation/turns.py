"""Shards that are worked on by one process at the same time: together, or one of them alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Turns"]


class Turns:
    """Who may be in a process at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._wanting = 0
        self._alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """With others, but with nobody who has to be alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._wanting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Without anybody else in this process: if it dies, it is clear of what."""
        with self._changed:
            self._wanting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._wanting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
