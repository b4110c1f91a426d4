"""Supervision of shards: events, attempts with blame for images that kill a process, exclusive access, and a watchdog.

A process that dies (a crash in a decoder, out of memory, a hang that was cut short) cannot report the cause. So the
attempt that follows a death is isolated: it records each stage of each image before the stage starts. An image in which
isolated attempts died often enough is quarantined: it becomes an error row, and its shard is done without it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import IncompleteRun
from pipeline.segmentation.progress import Counts

__all__ = ["Attempt", "DepartedNodes", "Ledger", "ReadWriteLock", "ShardObserver", "Watchdog", "end_process"]


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


# The run gives up when this many attempts at one shard have died outside any image.
_UNEXPLAINED = 8


@dataclass(frozen=True)
class Attempt:
    """Instructions for one attempt at a shard.

    Attributes:
        number: Number of the attempt, from 1; a later attempt makes all earlier ones void. 0: the ledger gave no
            number, and it ignores what such an attempt reports.
        isolated: Whether the attempt records each stage before it starts, and loads nothing ahead.
        quarantined: Stage in which the process died, by position of the image in the shard.
    """

    number: int = 0
    isolated: bool = False
    quarantined: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DepartedNodes:
    """Nodes that can be the cause of a death.

    Attributes:
        left: Ids of nodes that left the cluster on purpose, or are about to (preemption, scaling down).
        lost: Ids of nodes that died without notice.
    """

    left: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


@dataclass
class _Death:
    """End of an attempt without a result.

    Attributes:
        node: Id of the node on which the attempt ran.
        place: Position and stage that the attempt recorded last; None outside the images, and for ordinary attempts,
            which record nothing.
        fate: State of the node about that time.
    """

    node: str
    place: tuple[int, str] | None
    fate: Literal["alive", "left", "lost"] = "alive"


@dataclass
class _Shard:
    """State of a shard that has not ended.

    Attributes:
        number: Number of the newest attempt; 0 before the first one.
        node: Id of the node on which the newest attempt runs; None if its death is recorded already.
        place: Position and stage that the newest attempt recorded last; None outside the images.
        deaths: Deaths of all attempts, the oldest first.
        quarantined: Stage in which the process died, by position of the image in the shard.
        images: Number of images that the newest attempt has done, failed ones included.
        errors: Number of images that failed in the newest attempt.
    """

    number: int = 0
    node: str | None = None
    place: tuple[int, str] | None = None
    deaths: list[_Death] = field(default_factory=list)
    quarantined: dict[int, str] = field(default_factory=dict)
    images: int = 0
    errors: int = 0


class Ledger:
    """Record of the attempts at all shards, kept in one process that outlives the workers.

    A death counts if its node is still alive. A death on a node that left on purpose counts for nothing, and so do the
    deaths on the first node of a shard that was lost: the shard is simply tried again. From the second lost node on,
    deaths count, because an image may be the reason why nodes die.

    Args:
        most: Number of isolated attempts that die in one image before it is quarantined.
        departed_nodes: Function that returns the nodes that are gone or going.
    """

    def __init__(self, most: int, departed_nodes: Callable[[], DepartedNodes] = DepartedNodes) -> None:
        self._most = most
        self._departed_nodes = departed_nodes
        self._departed = DepartedNodes()
        self._open: dict[int, _Shard] = {}
        self._ended: set[int] = set()
        self._images = self._errors = self._heartbeats = 0

    def begin(self, shard: int, node: str = "", *, exclusive: bool = True) -> Attempt | None:
        """Start the next attempt at a shard and return its instructions; None if the shard has ended already.

        An isolated attempt starts, and counts, only with exclusive access to its process. Otherwise a death that
        another shard caused would be held against this one, which was only waiting.

        Args:
            shard: Number of the shard.
            node: Id of the node on which the attempt runs.
            exclusive: Whether the caller has exclusive access to its process. If it has not, and the next attempt is
                an isolated one, nothing starts: the caller must get exclusive access and call again.

        Raises:
            IncompleteRun: If too many attempts died, and no image is to blame.
        """
        if shard in self._ended:
            return None
        state = self._open.setdefault(shard, _Shard())
        # A shard is begun again only because its last attempt died: nothing else reports a death.
        if state.node is not None:
            state.deaths.append(_Death(state.node, state.place))
            state.node = state.place = None
        # The new attempt starts from the first image, so the counts of the last one are dropped.
        state.images = state.errors = 0
        deaths = self._counting_deaths(state)
        self._judge(shard, state, deaths)
        attempt = Attempt(state.number + 1, bool(deaths), dict(state.quarantined))
        if exclusive or not attempt.isolated:
            state.number = attempt.number
            state.node = node
        return attempt

    def record_stage(self, shard: int, number: int, place: tuple[int, str] | None) -> None:
        """Record the (position, stage) that an attempt is about to start; None: all its images are done."""
        if (state := self._current(shard, number)) is not None:
            state.place = place

    def images(self, shard: int, number: int, done: int, failed: int) -> None:
        """Add `done` images to an attempt's progress, `failed` of which failed."""
        if (state := self._current(shard, number)) is not None:
            state.images += done
            state.errors += failed

    def heartbeat(self) -> None:
        """Count a heartbeat from work within an image."""
        self._heartbeats += 1

    def end(self, shard: int) -> None:
        """Record that the part of a shard is written; the shard is not attempted again."""
        state = self._open.pop(shard, _Shard())
        # Two attempts may both end, if the first was given up while it went on: images count once.
        if shard not in self._ended:
            self._ended.add(shard)
            self._images += state.images
            self._errors += state.errors

    def counts(self) -> Counts:
        """Return the progress of the run; each image counts once, regardless of the number of attempts."""
        images = self._images + sum(state.images for state in self._open.values())
        errors = self._errors + sum(state.errors for state in self._open.values())
        return Counts(images, errors, len(self._ended), self._heartbeats)

    def look_at_nodes(self) -> None:
        """Take note of the nodes that are about to leave: of a dead node, the cluster may not tell why it died."""
        now = self._departed_nodes()
        left = self._departed.left | now.left
        self._departed = DepartedNodes(left, now.lost - left)

    def _current(self, shard: int, number: int) -> _Shard | None:
        """Return the state of a shard, or None, which discards the report, if a newer attempt has started."""
        state = self._open.get(shard)
        return state if state is not None and state.number == number else None

    def _counting_deaths(self, state: _Shard) -> list[_Death]:
        """Return the deaths of a shard for which its node is not the likely cause."""
        if not state.deaths:
            return []
        self.look_at_nodes()
        # The loss of a node may become known late. A node that goes after the next death did not cause the one before.
        for death in state.deaths[-2:]:
            left, lost = death.node in self._departed.left, death.node in self._departed.lost
            death.fate = "left" if left else "lost" if lost else "alive"
        spared = next((death.node for death in state.deaths if death.fate == "lost"), None)
        return [
            death for death in state.deaths if death.fate == "alive" or (death.fate == "lost" and death.node != spared)
        ]

    def _judge(self, shard: int, state: _Shard, deaths: Sequence[_Death]) -> None:
        """Quarantine the images in which enough attempts died.

        Raises:
            IncompleteRun: If too many attempts died outside any image.
        """
        outside = sum(death.place is None for death in deaths)
        if outside >= _UNEXPLAINED:
            raise IncompleteRun(
                f"{outside} processes ended while they worked on shard {shard}, outside any image: look "
                "at the cluster (memory, nodes that come and go), then submit the same command again"
            )
        deaths_in = defaultdict[int, list[_Death]](list)
        for death in deaths:
            if death.place is not None:
                position, stage = death.place
                deaths_in[position].append(death)
                # Deaths with a node that was lost are evidence only if they happened on two nodes.
                alive = sum(each.fate == "alive" for each in deaths_in[position])
                on_two = len({each.node for each in deaths_in[position]}) > 1
                if alive >= self._most or (on_two and len(deaths_in[position]) >= self._most):
                    state.quarantined.setdefault(position, stage)


class ReadWriteLock:
    """Exclusive and shared access to the worker process; threads that wait for exclusive access have priority."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._wanting = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold shared access; wait while another thread holds exclusive access or waits for it."""
        with self._changed:
            # Waiting for exclusive access blocks new shared access, which could otherwise delay it without end.
            self._changed.wait_for(lambda: not self._alone and not self._wanting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold exclusive access, so that the cause is known if the process dies."""
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


logger = logging.getLogger(__name__)
_EXIT_CODE = 70
_LOOK_SECONDS = 1.0


def end_process(reason: str, exit_now: Callable[[int], object] = os._exit) -> None:
    """End this process at once, with the stacks of all threads on standard error.

    Args:
        reason: Clause for the log.
        exit_now: Function of the exit code that ends the process without cleanup.
    """
    logger.error("%s: this process ends", reason)
    faulthandler.dump_traceback(sys.__stderr__ or 2)
    exit_now(_EXIT_CODE)


class Watchdog:
    """Time limit for the steps that run in this process, at most one in each thread.

    Args:
        seconds: Seconds that a step may take; after that the process ends, with the stacks of all threads on standard
            error.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._steps: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Watch a step; each call of the yielded function restarts the step's time limit."""
        key = threading.get_ident()

        def renew() -> None:
            self._steps[key] = name, time.monotonic()

        renew()
        try:
            yield renew
        finally:
            self._steps.pop(key, None)

    def _watch(self) -> None:
        """Check all steps about once a second; end the process if one takes too long."""
        while True:
            # No Python thread runs while a library keeps the interpreter's lock, but this timer needs no lock. It is
            # set again in every round, so it expires only if this thread itself cannot run.
            faulthandler.dump_traceback_later(self._seconds + 2 * _LOOK_SECONDS, exit=True)
            now = time.monotonic()
            # The list is a copy, because other threads start and end steps meanwhile.
            for name, since in list(self._steps.values()):
                if now - since > self._seconds:
                    end_process(f"{name} took longer than {self._seconds:g} seconds")
            time.sleep(min(_LOOK_SECONDS, self._seconds / 2))
