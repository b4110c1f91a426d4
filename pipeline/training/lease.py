"""One driver per run, without a lock server and without trusting clocks.

Drivers are numbered: each one creates `<output>/drivers/<number>.json`, which only one can, and from then on rewrites
`<number>.beat`. Whoever finds a driver before it watches that beat: one that goes on belongs to a living driver, one
that stands still for a while to a dead one, whose run is taken over under the next number.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType

from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectMissing, RunConflict, StorageError

__all__ = ["Lease", "check_driver"]

logger = logging.getLogger(__name__)


class Lease:
    """The right to drive a run, held while the context is entered.

    Args:
        storage: where the run's objects lie.
        output: of the run.
        beat_seconds: between two signs of life.
        patience_seconds: after which a driver without a sign of life counts as dead; several beats.

    Attributes:
        number: of this driver; valid once entered.

    Raises:
        RunConflict: on entering, if another driver is alive; it is named.
    """

    def __init__(
        self, storage: Storage, output: str, beat_seconds: float = 3.0, patience_seconds: float = 15.0
    ) -> None:
        self._storage, self._output = storage, output
        self._beat_seconds, self._patience_seconds = beat_seconds, patience_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.number = 0

    def __enter__(self) -> Lease:
        last = _newest(self._storage, self._output)
        if last and not self._ended(last):
            self._await_silence(last)
        self._take(last + 1)
        self._thread.start()
        return self

    def renew(self) -> None:
        """Goes on under the next number, so that whoever still acts under the last one is told so by `check_driver`.

        Raises:
            RunConflict: if another driver has taken the run over.
        """
        check_driver(self._storage, self._output, self.number)
        self._take(self.number + 1)

    def _take(self, number: int) -> None:
        owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex})
        # Created by one alone: of two that find the same dead driver, the other one is refused here.
        if not self._storage.write_once(self._uri("json", number), owner.encode()):
            raise RunConflict(self._refusal(number))
        # A number that was free may be an old one whose owner has gone on and tidied up.
        check_driver(self._storage, self._output, number)
        self.number = number
        self._storage.write(self._uri("beat"), b"0")
        self._forget(number - 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        try:
            self._storage.write(self._uri("ended"), b"")
        except StorageError as failure:
            logger.warning("the next driver will wait for this one: %s", failure)

    def _beat(self) -> None:
        for count in range(1, 2**62):
            try:
                self._storage.write(self._uri("beat"), str(count).encode())
            except StorageError as error:
                # One beat that fails may be followed by one that does not; if none does, another may take over.
                logger.warning("no sign of life could be given: %s", error)
            if self._done.wait(self._beat_seconds):
                return

    def _await_silence(self, number: int) -> None:
        """Returns when driver `number` has ended, or gave no sign of life for the time of patience."""
        first, started = self._read(number, "beat"), time.monotonic()
        logger.warning("%s: waiting %g s for a sign of life", self._describe(number), self._patience_seconds)
        while time.monotonic() - started < self._patience_seconds:
            time.sleep(self._beat_seconds / 4)
            if self._ended(number):
                return
            if self._read(number, "beat") != first:
                # Another beat, or none at all: then somebody else has taken the run over meanwhile.
                raise RunConflict(self._refusal(_newest(self._storage, self._output)))
        logger.warning("it gave none: this driver takes over")

    def _ended(self, number: int) -> bool:
        return self._storage.exists(self._uri("ended", number))

    def _read(self, number: int, kind: str) -> bytes:
        try:
            return self._storage.read(self._uri(kind, number))
        except ObjectMissing:
            return b""

    def _describe(self, number: int) -> str:
        try:
            owner = json.loads(self._read(number, "json"))
            return f"driver {number} of {self._output} (process {owner['pid']} on {owner['host']})"
        except (ValueError, KeyError, TypeError):
            return f"driver {number} of {self._output}"

    def _refusal(self, number: int) -> str:
        return f"{self._describe(number)} is at work on this run: wait for its end, or stop it first"

    def _forget(self, before: int) -> None:
        """Removes what earlier drivers left."""
        for number in range(max(1, before - 1), before + 1):
            for kind in ("beat", "ended", "json"):
                self._storage.delete(self._uri(kind, number))

    def _uri(self, kind: str, number: int | None = None) -> str:
        return join(self._output, "drivers", f"{number or self.number:06d}.{kind}")


def check_driver(storage: Storage, output: str, number: int) -> None:
    """Lets driver `number` go on, unless another has taken the run over since.

    Raises:
        RunConflict: if one has. A driver that was stopped or cut off may wake up later than it thinks.
    """
    newest = _newest(storage, output)
    if newest > number:
        raise RunConflict(f"driver {newest} has taken {output} over from driver {number}, which gave no sign of life")


def _newest(storage: Storage, output: str) -> int:
    names = [info.uri.rsplit("/", 1)[-1] for info in storage.list(join(output, "drivers"))]
    return max((int(name.split(".")[0]) for name in names if name.endswith(".json")), default=0)
