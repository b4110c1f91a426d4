"""Tests of an interrupted demo: it leaves no process behind and writes no results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_stops_all_it_started(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "demo", "--keep", str(tmp_path / "kept")]
    # Start it in a process group of its own, which receives the signal as it would from a terminal.
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as demo:
        try:
            assert demo.stdout is not None
            line = demo.stdout.readline()
            assert line.startswith("starting SeaweedFS and Ray … "), line
            family = psutil.Process(demo.pid).children(recursive=True)
            assert any("weed" in member.name() for member in family) and len(family) > 5
            deadline = time.monotonic() + 60
            while not _draws(demo.pid, family):
                assert time.monotonic() < deadline, "no scene is drawn"
                time.sleep(0.1)
            family = psutil.Process(demo.pid).children(recursive=True)
            os.killpg(demo.pid, number)
            _, errors = demo.communicate(timeout=120)
            assert demo.returncode == code
            assert "Traceback" not in errors, errors
        finally:
            demo.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]
    assert not (tmp_path / "kept").exists()


def _draws(pid: int, servers: list[psutil.Process]) -> bool:
    """Return whether the processes that draw scenes are at work."""
    known = {member.pid for member in servers}
    return any(member.ppid() == pid and member.pid not in known for member in psutil.Process(pid).children())
