"""Interface between a segmenter and the process that runs it: events of a shard, and instructions for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

__all__ = ["ShardObserver"]


class ShardObserver:
    """Observer of the events of a shard; this default ignores them.

    Attributes:
        quarantined: Stage at which earlier attempts died, by position of the image in the shard. The segmenter writes
            an error row for such an image without touching it.
        overlapping: Whether later images load, and earlier ones are labeled, while the network runs. Otherwise one
            stage of one image runs at a time, so that a process that dies has one suspect.
    """

    quarantined: Mapping[int, str] = {}
    overlapping = True

    def image(self, ok: bool) -> None:
        """Record that an image is done; `ok` is False if it became an error row."""

    def stage(self, position: int, name: str) -> None:
        """Record that a stage of the image at `position` starts; stages of several images overlap if `overlapping`."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Surround work that may hang; the yielded function must be called whenever a part of the work is done."""
        yield lambda: None
