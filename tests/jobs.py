"""Job scripts as processes: drivers that connect to the tests' cluster."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finished:
    """What a job left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def driver(cluster: Cluster, script: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A running job script; killed on leaving if it has not ended."""
    env = {**cluster.env, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, f"jobs/{script}.py", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run_job(cluster: Cluster, script: str, arguments: Sequence[str], seconds: float = 240) -> Finished:
    """Runs a job script to its end."""
    with driver(cluster, script, arguments) as process:
        return finish(process, seconds)


def finish(process: subprocess.Popen[str], seconds: float = 240) -> Finished:
    """Awaits a driver's end."""
    out, err = process.communicate(timeout=seconds)
    return Finished(process.returncode, out, err)


def await_condition(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Returns when `condition` holds; fails with the job's output if it ends first, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the job ended first:\n{process.stderr.read() if process.stderr else ''}"
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.05)


def ray_processes(title: str) -> list[psutil.Process]:
    """This session's Ray worker processes whose title holds `title`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found
