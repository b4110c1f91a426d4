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

__all__ = ["child_process", "end_tree", "heed_interrupts", "signals_deferred", "wait_until"]


@contextlib.contextmanager
def child_process(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 8.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own, and end it and all its descendants when the context ends.

    Args:
        command: Program and arguments.
        log: File to which standard output and standard error are appended.
        env: Environment variables; None: those of this process.
        cwd: Working directory; None: that of this process.
        grace: Seconds between SIGTERM and SIGKILL.

    Yields:
        The running process.
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


def heed_interrupts() -> None:
    """Make this process and its children answer SIGINT, which a shell makes its background jobs ignore.

    A child inherits an ignored signal, but not a handler: with one here, it gets the default action.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_tree(pid: int, *, grace: float = 8.0) -> None:
    """Send SIGTERM to a process and its descendants, and SIGKILL to those that still run after `grace` seconds."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for member in family:
        _signal(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=grace)
    # A process may have forked since SIGTERM: list the descendants again before SIGKILL.
    for member in {child for parent in alive for child in _descendants(parent)} | set(alive):
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace)


def wait_until(ready: Callable[[], bool], *, what: str, seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Poll `ready` every 0.1 s until it returns true.

    Args:
        ready: Condition to poll.
        what: Name of the awaited server, for error messages.
        seconds: Longest time to wait in seconds.
        process: Process of the server; its end also ends the wait.

    Raises:
        RuntimeError: If `process` ends first or `seconds` pass; the message names what was awaited.
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
    """Defer SIGINT and SIGTERM until the context ends; processes started in it block both signals.

    For the main thread only, because Python sets signal handlers there.

    Raises:
        BaseException: If a signal came meanwhile; it is whatever the handler of the first one raises.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # Children inherit the mask. It does not keep a signal from this process: any other thread may receive it, and
    # Python then runs the handler in this thread, perhaps while a child starts and waits for its first instructions.
    # That is why the handlers are replaced as well.
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
    """Return all descendants of a process; an empty list if it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
