"""Lease that admits one driver per run, without a lock server and without trusting clocks.

Drivers are numbered. Each driver creates `<output>/drivers/<number>.json`, which succeeds for one driver only, and then
rewrites `<number>.beat` at regular intervals. A driver that finds an earlier one watches that beat. A beat that changes
shows a living driver. A beat that stays the same for a while shows a dead one, and the new driver takes over the run
under the next number.
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
    """Exclusive right to drive a run, held while the context is entered.

    Args:
        storage: Storage of the run's output.
        output: URI of the run's output.
        beat_seconds: Seconds between two heartbeats.
        patience_seconds: Seconds without a heartbeat after which a driver counts as dead; several beats.

    Attributes:
        number: Number of this driver; 0 until the context is entered.

    Raises:
        RunConflict: If another driver is alive when the context is entered; the message names it.
    """

    def __init__(
        self, storage: Storage, output: str, beat_seconds: float = 3.0, patience_seconds: float = 15.0
    ) -> None:
        self._storage = storage
        self._output = output
        self._beat_seconds = beat_seconds
        self._patience_seconds = patience_seconds
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
        """Take the next number, so that `check_driver` refuses workers that still act under the last one.

        Raises:
            RunConflict: If another driver has taken over the run.
        """
        check_driver(self._storage, self._output, self.number)
        self._take(self.number + 1)

    def _take(self, number: int) -> None:
        """Claim a number for this driver, or raise RunConflict if another driver has it."""
        owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex})
        # Only one driver can create the object: of two that find the same dead driver, the second fails here.
        if not self._storage.write_once(self._uri("json", number), owner.encode()):
            raise RunConflict(self._refusal(number))
        # The number may be free because its owner has taken a later one and deleted the object.
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
        """Rewrite the beat object until the context ends; runs in a thread of its own."""
        for count in range(1, 2**62):
            try:
                self._storage.write(self._uri("beat"), str(count).encode())
            except StorageError as error:
                # A later beat may succeed; if none does, another driver may take over, as intended.
                logger.warning("no heartbeat could be sent: %s", error)
            if self._done.wait(self._beat_seconds):
                return

    def _await_silence(self, number: int) -> None:
        """Wait until driver `number` has ended, or has sent no heartbeat for `patience_seconds`.

        Raises:
            RunConflict: If the driver sends a heartbeat.
        """
        # Only changes of the beat count, measured by this machine's monotonic clock: clocks are never compared.
        first = self._read(number, "beat")
        started = time.monotonic()
        logger.warning("%s: waiting %g s for a heartbeat", self._describe(number), self._patience_seconds)
        while time.monotonic() - started < self._patience_seconds:
            time.sleep(self._beat_seconds / 4)
            if self._ended(number):
                return
            if self._read(number, "beat") != first:
                # A new beat shows a living driver. A deleted one shows that another driver has taken over meanwhile.
                raise RunConflict(self._refusal(_newest(self._storage, self._output)))
        logger.warning("it gave none: this driver takes over")

    def _ended(self, number: int) -> bool:
        return self._storage.exists(self._uri("ended", number))

    def _read(self, number: int, kind: str) -> bytes:
        """Return the content of a driver's object, or no bytes if the object is missing."""
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
        """Delete the objects of the two numbers up to `before`."""
        for number in range(max(1, before - 1), before + 1):
            for kind in ("beat", "ended", "json"):
                self._storage.delete(self._uri(kind, number))

    def _uri(self, kind: str, number: int | None = None) -> str:
        return join(self._output, "drivers", f"{number or self.number:06d}.{kind}")


def check_driver(storage: Storage, output: str, number: int) -> None:
    """Check that no other driver has taken over the run from driver `number`.

    A driver that was suspended or disconnected does not notice by itself that it was replaced.

    Args:
        storage: Storage of the run's output.
        output: URI of the run's output.
        number: Number under which the caller acts.

    Raises:
        RunConflict: If a later driver exists.
    """
    newest = _newest(storage, output)
    if newest > number:
        raise RunConflict(f"driver {newest} has taken {output} over from driver {number}, which sent no heartbeat")


def _newest(storage: Storage, output: str) -> int:
    """Return the highest number of any driver; 0 if there is none."""
    names = [info.uri.rsplit("/", 1)[-1] for info in storage.list(join(output, "drivers"))]
    return max((int(name.split(".")[0]) for name in names if name.endswith(".json")), default=0)
