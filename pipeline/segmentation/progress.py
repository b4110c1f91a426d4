"""Progress of a run in images, with rate and time left: one rewritten line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TextIO

__all__ = ["Counts", "ProgressLine"]

# Shortest interval between plain lines.
_PLAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Counts:
    """Totals that actors reported since the start of this submission.

    Attributes:
        images: Number of images that are done, failed ones included.
        errors: Number of images that failed.
        shards: Number of shards whose part is written.
        heartbeats: Number of heartbeats from work within images.
    """

    images: int = 0
    errors: int = 0
    shards: int = 0
    heartbeats: int = 0


class ProgressLine:
    """Progress display that limits how often plain lines are printed.

    Args:
        total: Number of images of the run.
        before: Number of images that earlier submissions finished.
        stream: Text stream to which the progress is printed.
    """

    def __init__(self, total: int, before: int = 0, stream: TextIO = sys.stderr) -> None:
        self._total = total
        self._before = before
        self._stream = stream
        self._terminal = stream.isatty()
        self._first: tuple[float, int] | None = None
        self._last_print = float("-inf")

    def show(self, counts: Counts, *, final: bool = False) -> None:
        """Print the progress, unless the last plain line is too recent; `final` prints always and ends the line."""
        now = time.monotonic()
        if counts.images and self._first is None:
            self._first = (now, counts.images)
        if not final and not self._terminal and now - self._last_print < _PLAIN_SECONDS:
            return
        self._last_print = now
        text = self._text(counts, now)
        end = "\n" if final or not self._terminal else ""
        # On a terminal, \r and \033[K clear the line that is rewritten.
        self._stream.write(f"\r\033[K{text}{end}" if self._terminal else f"{text}\n")
        self._stream.flush()

    def _text(self, counts: Counts, now: float) -> str:
        done = self._before + counts.images
        share = 100 * done / self._total if self._total else 100.0
        text = f"{done}/{self._total} images ({share:.0f}%)"
        if counts.errors:
            text += f", {counts.errors} failed"
        return text + self._rate_and_time_left(counts, now)

    def _rate_and_time_left(self, counts: Counts, now: float) -> str:
        """Return rate and time left, measured from the first image on, because start-up would distort the estimate."""
        if self._first is None or counts.images <= self._first[1]:
            return ", waiting for the first images" if not counts.images else ""
        rate = (counts.images - self._first[1]) / max(1e-9, now - self._first[0])
        left = max(0, self._total - self._before - counts.images)
        return f", {rate:.2f} images/s, {_duration(left / rate)} left"


def _duration(seconds: float) -> str:
    """Return a duration as h:mm:ss, or m:ss below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
