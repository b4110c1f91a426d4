"""Ends this process when a step does not come back: nothing else stops a decoder that loops in C."""

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
    """Watches the steps that are under way in this process, on any thread.

    Args:
        seconds: that a step may take; then the process ends, with all threads' stacks on standard error.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._steps: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """A step; calling what it yields says that it goes on, and gives it its time anew."""
        key = threading.get_ident()

        def renew() -> None:
            self._steps[key] = name, time.monotonic()

        renew()
        try:
            yield renew
        finally:
            self._steps.pop(key, None)

    def _watch(self) -> None:
        while True:
            # Python's threads stand still while a library keeps the interpreter's lock; this timer does not need it.
            # Set anew each time, it goes off only if this thread itself does not get to run.
            faulthandler.dump_traceback_later(self._seconds + 2 * _LOOK_SECONDS, exit=True)
            now = time.monotonic()
            for name, since in list(self._steps.values()):
                if now - since > self._seconds:
                    logger.error("%s took longer than %g seconds: this process ends", name, self._seconds)
                    faulthandler.dump_traceback(sys.__stderr__ or 2)
                    os._exit(_EXIT_CODE)
            time.sleep(min(_LOOK_SECONDS, self._seconds / 2))
