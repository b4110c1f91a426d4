"""Child processes that never outlive their owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

__all__ = ["child_process", "end_tree", "signals_deferred", "wait_until"]


@contextlib.contextmanager
def child_process(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 8.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` in a session of its own, output to `log`; ends it and all its descendants on leaving.

    They have `grace` seconds between SIGTERM and SIGKILL.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end_tree(process.pid, grace=grace)
            process.wait(timeout=30)


def end_tree(pid: int, *, grace: float = 8.0) -> None:
    """Sends SIGTERM to a process and its descendants, and SIGKILL to what is left after `grace` seconds."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for member in family:
        _signal(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=grace)
    # A family that was asked to stop may have forked meanwhile: look again before killing.
    for member in {child for parent in alive for child in _descendants(parent)} | set(alive):
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace)


def wait_until(ready: Callable[[], bool], *, what: str, seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Polls `ready` until it is true.

    Raises:
        RuntimeError: if `process` ends first or `seconds` pass; the message says what was awaited.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with exit code {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready after {seconds:.0f} seconds")
        time.sleep(0.1)


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Answers SIGINT and SIGTERM on leaving; processes started meanwhile are deaf to both. For the main thread only.

    Raises:
        BaseException: on leaving, whatever the handler of a signal that came meanwhile raises.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # The mask is for the children, who inherit it. It does not keep a signal from this process: any other thread takes
    # it, and Python runs the handler here, in the middle of starting a child that waits to hear what it is to do.
    ours = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, note) for number in ours}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, number)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
