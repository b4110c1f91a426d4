"""Tests that children end with their owner, whatever they do and however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import psutil
import pytest

from demo.processes import child_process, signals_deferred, wait_until

# Source of a child that ignores SIGTERM, as does its own child.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "leaf"])
    print(child.pid, flush=True)
time.sleep(60)
"""
OWNER = """
import sys
from pathlib import Path
from types import FrameType
from demo.processes import child_process
with child_process([sys.executable, "-c", "import time; time.sleep(60)"], log=Path(sys.argv[1])) as process:
    print(process.pid, flush=True)
    process.wait()
"""
ROOT = Path(__file__).resolve().parents[2]


def ends(pid: int, seconds: float = 10) -> bool:
    """Return whether a process ends in time."""
    try:
        psutil.Process(pid).wait(timeout=seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_stubborn_descendants_are_killed(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    log = tmp_path / "log"
    script.write_text(STUBBORN)
    with child_process([sys.executable, str(script)], log=log, grace=0.3) as process:
        wait_until(lambda: log.read_text().strip() != "", what="the child", seconds=20, process=process)
        grandchild = int(log.read_text())
        assert psutil.pid_exists(grandchild)
    assert ends(process.pid) and ends(grandchild)


def test_an_error_inside_ends_the_child(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(KeyError), child_process(sleeper, log=tmp_path / "log") as process:
        raise KeyError
    assert ends(process.pid)


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        owner.send_signal(signal.SIGINT)
        owner.wait(timeout=30)
    assert ends(child)


def test_waiting_says_what_for(tmp_path: Path) -> None:
    with child_process([sys.executable, "-c", "raise SystemExit(3)"], log=tmp_path / "log") as process:
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="the server ended with exit code 3"):
            wait_until(lambda: False, what="the server", seconds=30, process=process)
        assert time.monotonic() - started < 20
    with (
        child_process([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log") as process,
        pytest.raises(RuntimeError, match="the server was not ready after 0 seconds"),
    ):
        wait_until(lambda: False, what="the server", seconds=0.2, process=process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_answered_on_leaving(number: signal.Signals) -> None:
    class Stopped(Exception):
        pass

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    came_through = False
    before = signal.signal(number, stop)
    try:
        # Another thread receives the signal that this one has blocked.
        with ThreadPoolExecutor(1) as other, pytest.raises(Stopped), signals_deferred():
            other.submit(os.kill, os.getpid(), number).result()
            child = [sys.executable, "-c", "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))"]
            deaf_to = subprocess.run(child, capture_output=True, text=True, check=True, timeout=30).stdout.split()
            came_through = True
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert came_through
    assert {str(int(name)) for name in (signal.SIGINT, signal.SIGTERM)} <= set(deaf_to)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
