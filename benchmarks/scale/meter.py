"""Time, memory and requests of this process."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.scale.remote import Numbers, Remote
from pipeline.data.storage import Storage

__all__ = ["TimedStorage", "measured", "peak_mib", "resident_mib", "temporary_bytes"]


class TimedStorage(Storage):
    """Storage that sums up the time of its listings.

    Attributes:
        listing: Seconds of wall time and of this process's CPU time, all listing requests together.
    """

    listing = (0.0, 0.0)

    def call(self, action: str, uri: str, request: Callable[[Any, str], Any]) -> Any:
        """Make a request as `Storage.call` does, and add its time to `listing` if it is a listing."""
        started = time.perf_counter()
        cpu = time.process_time()
        result = super().call(action, uri, request)
        if action == "list":
            wall = self.listing[0] + time.perf_counter() - started
            self.listing = wall, self.listing[1] + time.process_time() - cpu
        return result


@contextlib.contextmanager
def measured() -> Iterator[Numbers]:
    """Measure the block, and fill the yielded dictionary when it ends.

    Yields:
        Dictionary that receives seconds, CPU seconds of this process, its peak memory so far, and requests of the
            block.
    """
    server = Remote(os.environ["AWS_ENDPOINT_URL"])
    found = Numbers()
    server.counts()
    started = time.perf_counter()
    cpu = time.process_time()
    yield found
    found["seconds"] = round(time.perf_counter() - started, 3)
    found["cpu_seconds"] = round(time.process_time() - cpu, 3)
    found |= {"peak_mib": peak_mib(), "requests": server.counts()}


def temporary_bytes() -> int:
    """Return the size of deleted files that this process still has open, such as SQLite's temporary one (Linux)."""
    # iterdir's own descriptor is closed by now, hence the check for existence.
    found = [path.stat() for path in list(Path("/proc/self/fd").iterdir()) if path.exists()]
    return sum(entry.st_size for entry in found if stat.S_ISREG(entry.st_mode) and entry.st_nlink == 0)


def peak_mib() -> int:
    """Return the peak resident memory so far in MiB.

    `ru_maxrss` is only a fallback, because a child's value begins with that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def resident_mib() -> float:
    """Return the resident memory now, in MiB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
