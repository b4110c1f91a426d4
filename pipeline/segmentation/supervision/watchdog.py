"""Watchdog that ends this process when a step hangs; nothing else stops a decoder that loops in C."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)
_EXIT_CODE = 70
_LOOK_SECONDS = 1.0


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
                    logger.error("%s took longer than %g seconds: this process ends", name, self._seconds)
                    faulthandler.dump_traceback(sys.__stderr__ or 2)
                    os._exit(_EXIT_CODE)
            time.sleep(min(_LOOK_SECONDS, self._seconds / 2))
