"""What became of attempts at shards: which are done, where one died, and which image is to blame.

A process that dies (a crash in a decoder, out of memory, a hang that was cut short) says nothing any more. So the
attempt that follows a death is a careful one: it tells before each stage of each image where it stands. An image in
which careful attempts died often enough is quarantined: it becomes an error row, and its shard is done without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import IncompleteRun
from pipeline.segmentation.progress import Counts

__all__ = ["Attempt", "Ledger"]

# Attempts of one shard that may end outside any image before the run gives up on it.
_UNEXPLAINED = 8


@dataclass(frozen=True)
class Attempt:
    """How a shard is to be worked on.

    Attributes:
        number: from 1; a later one makes all before it void.
        careful: whether to tell before each stage, and to load nothing ahead.
        quarantined: image's position in the shard → stage in which its process died.
    """

    number: int = 0
    careful: bool = False
    quarantined: Mapping[int, str] = field(default_factory=dict)


@dataclass
class _Shard:
    number: int = 0
    place: tuple[int, str] | None = None
    unexplained: int = 0
    deaths: Counter[int] = field(default_factory=Counter)
    quarantined: dict[int, str] = field(default_factory=dict)
    images: int = 0
    errors: int = 0


class Ledger:
    """Kept by one process that outlives those that work on shards.

    Args:
        most: deaths of careful attempts in one image, after which it is quarantined.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[int, _Shard] = {}
        self._ended: set[int] = set()
        self._images = self._errors = self._signs = 0

    def begin(self, shard: int) -> Attempt | None:
        """The next attempt at a shard; None if it has ended: then there is nothing to do.

        Raises:
            IncompleteRun: if too many attempts died, and no image is to blame.
        """
        if shard in self._ended:
            return None
        state = self._open.setdefault(shard, _Shard())
        if state.number:
            self._blame(shard, state)
        state.number += 1
        state.place, state.images, state.errors = None, 0, 0
        return Attempt(state.number, state.number > 1, dict(state.quarantined))

    def stand(self, shard: int, number: int, place: tuple[int, str] | None) -> None:
        """An attempt is about to begin a stage of an image; None: it is done with images."""
        if (state := self._current(shard, number)) is not None:
            state.place = place

    def images(self, shard: int, number: int, done: int, failed: int) -> None:
        """So many more images are done; those that failed among them."""
        if (state := self._current(shard, number)) is not None:
            state.images += done
            state.errors += failed

    def alive(self) -> None:
        """Something went on within an image."""
        self._signs += 1

    def end(self, shard: int) -> None:
        """A shard's part is there."""
        state = self._open.pop(shard, _Shard())
        if shard not in self._ended:
            self._ended.add(shard)
            self._images += state.images
            self._errors += state.errors

    def counts(self) -> Counts:
        """Images once each, however often they were tried."""
        images = self._images + sum(state.images for state in self._open.values())
        errors = self._errors + sum(state.errors for state in self._open.values())
        return Counts(images, errors, len(self._ended), self._signs)

    def _current(self, shard: int, number: int) -> _Shard | None:
        """Of an attempt that was given up, and yet goes on, nothing is heard any more."""
        state = self._open.get(shard)
        return state if state is not None and state.number == number else None

    def _blame(self, shard: int, state: _Shard) -> None:
        if state.place is None:
            state.unexplained += 1
            if state.unexplained >= _UNEXPLAINED:
                raise IncompleteRun(
                    f"{state.unexplained} processes ended while they worked on shard {shard}, outside any image: look "
                    "at the cluster (memory, nodes that come and go), then submit the same command again"
                )
            return
        position, stage = state.place
        state.deaths[position] += 1
        if state.deaths[position] >= self._most:
            state.quarantined[position] = stage
