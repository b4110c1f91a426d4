"""Memory cgroup, of version 1 or 2, in which the kernel's OOM killer ends a process."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MemoryLimit", "memory_limit"]

_ROOT = Path("/sys/fs/cgroup")
# Bytes that a process may still allocate: less than any image needs.
_ROOM = 64 * 1024


class MemoryLimit:
    """Cgroup with room for a few pages.

    Args:
        folder: Folder of the cgroup.
        limit: Name of the file with the limit in bytes.
        events: Name of the file that counts the processes that the kernel killed.
    """

    def __init__(self, folder: Path, limit: str, events: str) -> None:
        self._folder = folder
        self._events = events
        (folder / limit).write_text(str(_ROOM))

    def add(self, pid: int) -> None:
        """Move a process into the cgroup; memory that it has already stays charged to its former cgroup."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """Number of processes of the cgroup that the kernel has killed."""
        found = re.search(r"^oom_kill (\d+)$", (self._folder / self._events).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def memory_limit() -> Iterator[MemoryLimit | None]:
    """Make a cgroup, and remove it when the context ends; yield None if this machine does not allow it."""
    folder = _ROOT / f"soak-{os.getpid()}"
    names = "memory.max", "memory.events"
    if (_ROOT / "memory" / "memory.limit_in_bytes").exists():
        folder = _ROOT / "memory" / folder.name
        names = "memory.limit_in_bytes", "memory.oom_control"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        yield MemoryLimit(folder, *names) if (folder / names[0]).exists() else None
    finally:
        # Fails while a process is in the cgroup; an empty one that stays does no harm.
        with contextlib.suppress(OSError):
            folder.rmdir()
