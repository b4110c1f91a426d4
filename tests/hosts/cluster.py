"""Ray cluster with one raylet per host, and jobs submitted from its head."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from demo.processes import child_process, wait_until
from tests.hosts.namespaces import Host
from tests.job_helpers import ROOT

__all__ = ["HostCluster", "Job", "Line", "await_true", "ray_on"]

_BIN = Path(sys.executable).parent
# Every host has its own ports, so the numbers can be the same on all of them.
_PORTS = {
    "dashboard-agent-listen-port": 20001,
    "dashboard-agent-grpc-port": 20002,
    "metrics-export-port": 20003,
    "runtime-env-agent-port": 20004,
    "node-manager-port": 20005,
    "object-manager-port": 20006,
    "min-worker-port": 21000,
    "max-worker-port": 21999,
}
_GCS_PORT = 20000
_DASHBOARD_PORT = 20007
_CLIENT_PORT = 20008
_RANK = re.compile(r"\(ip=([\d.]+), pid=\d+\) world_rank=\d+")
_STORE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Line:
    """Line of a job's output.

    Attributes:
        at: Time at which the line arrived, in seconds of `time.monotonic`.
        text: Content of the line.
    """

    at: float
    text: str


@dataclass
class Job:
    """Submitted job, observed through its client on the head's host."""

    process: subprocess.Popen[str]
    lines: list[Line] = field(default_factory=list)

    def read(self) -> None:
        """Store lines as they arrive, until the client ends."""
        for line in self.process.stdout or ():
            self.lines.append(Line(time.monotonic(), line.rstrip()))

    @property
    def text(self) -> str:
        """All lines so far."""
        return "\n".join(line.text for line in self.lines)

    def await_line(self, pattern: str, seconds: float, after: float = 0.0) -> Line:
        """Return the first line that arrived later than `after` and matches `pattern`, waiting for it if necessary."""

        def found() -> list[Line]:
            return [line for line in list(self.lines) if line.at > after and re.search(pattern, line.text)]

        await_true(lambda: bool(found()), f"a line with {pattern!r}", seconds, self)
        return found()[0]

    def finish(self, seconds: float) -> int:
        """Wait for the job's end, and return the exit code of its client."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the job has not ended within {seconds:.0f} seconds:\n{self.text}") from None


@dataclass(frozen=True)
class HostCluster:
    """Ray cluster whose nodes are hosts; the head runs no work."""

    head: Host
    workers: tuple[Host, ...]
    env: Mapping[str, str]
    token: str
    folder: Path

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{_DASHBOARD_PORT}"

    def alive(self) -> set[str]:
        """Return the addresses of the nodes that Ray considers alive."""
        request = urllib.request.Request(
            f"{self.dashboard}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            nodes = json.load(reply)["data"]["summary"]
        return {node["raylet"]["nodeManagerAddress"] for node in nodes if node["raylet"].get("state") == "ALIVE"}

    def group(self) -> list[Host]:
        """Return the hosts of the newest worker group by rank, read from the logs of Ray Train's controllers."""
        logs = self.folder.glob("head/session_2*/logs/train/ray-train-app-controller-*.log")
        texts = [log.read_text() for log in sorted(logs, key=lambda log: log.stat().st_mtime)]
        groups = [_RANK.findall(line) for text in texts for line in text.splitlines()]
        by_address = {host.address: host for host in self.workers}
        # The logs have one line of JSON per group, which lists the workers in the order of their ranks.
        return [by_address[address] for address in [group for group in groups if group][-1]]

    @contextlib.contextmanager
    def submit(self, script: Sequence[str]) -> Iterator[Job]:
        """Run `ray job submit` on the head's host, and kill the client when the context ends."""
        command = [str(_BIN / "ray"), "job", "submit", "--address", self.dashboard, "--working-dir", str(ROOT), "--"]
        env = {**self.env, "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        both = subprocess.STDOUT
        with subprocess.Popen(
            self.head.command([*command, *script]),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=both,
            text=True,
        ) as process:
            job = Job(process)
            reader = threading.Thread(target=job.read, name="job-output", daemon=True)
            reader.start()
            try:
                yield job
            finally:
                process.kill()
                reader.join(timeout=10)


@contextlib.contextmanager
def ray_on(
    hosts: Sequence[Host], env: Mapping[str, str], folder: Path, head_env: Mapping[str, str] | None = None
) -> Iterator[HostCluster]:
    """Start a head on the first host and a raylet of one CPU on each other host; kill all when the context ends.

    Args:
        hosts: Two hosts or more.
        env: Environment variables that jobs need on every host.
        folder: Folder for the logs of `ray start`.
        head_env: Settings of Ray for the head alone.
    """
    head, *workers = hosts
    # Ray puts its sockets below this folder, and a socket's path must stay under 107 bytes.
    with contextlib.ExitStack() as stack:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
        )
        cluster = HostCluster(head, tuple(workers), _environment(env, root), (root / "token").read_text(), root)
        for host in hosts:
            host.plug_in()
            stack.callback(host.kill)
            own = {**cluster.env, **(head_env or {} if host is head else {})}
            command = host.command(_start(host, head, root / host.name))
            process = stack.enter_context(child_process(command, log=folder / f"{host.name}.log", env=own, grace=0.0))
            if host is head:
                up = partial(_holds, lambda: head.address in cluster.alive())
                wait_until(up, what="Ray's head", seconds=120, process=process)
        everyone = {host.address for host in hosts}
        await_true(lambda: cluster.alive() == everyone, "a node of Ray's on every host", 120)
        yield cluster


def await_true(condition: Callable[[], bool], what: str, seconds: float, job: Job | None = None) -> float:
    """Wait until `condition` holds, and return the time (`time.monotonic`).

    Raises:
        AssertionError: If `seconds` pass or `job` ends first; the message names what was awaited.
    """
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        if job is not None and job.process.poll() is not None and not _holds(condition):
            raise AssertionError(f"the job ended while {what} was awaited:\n{job.text}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} seconds\n{job.text if job else ''}")
        time.sleep(0.1)
    return time.monotonic()


def _environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    # Remove variables left in the environment: settings of Ray would apply to this cluster, and an address would select
    # another one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    path = f"{_BIN}{os.pathsep}{clean['PATH']}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return {**clean, **env, **auth, "PATH": path}


def _start(host: Host, head: Host, folder: Path) -> list[str]:
    if host is head:
        dashboard = (f"--dashboard-host={host.address}", f"--dashboard-port={_DASHBOARD_PORT}")
        role = ["--head", f"--port={_GCS_PORT}", f"--ray-client-server-port={_CLIENT_PORT}", "--num-cpus=0", *dashboard]
    else:
        # Each host has one CPU and each worker asks for one, so no two workers share a host.
        role = [f"--address={head.address}:{_GCS_PORT}", "--num-cpus=1"]
    return [
        *(str(_BIN / "ray"), "start", "--block", f"--node-ip-address={host.address}", "--disable-usage-stats"),
        *(f"--temp-dir={folder}", f"--object-store-memory={_STORE_BYTES}"),
        *role,
        *(f"--{name}={port}" for name, port in _PORTS.items()),
    ]


def _holds(condition: Callable[[], bool]) -> bool:
    """Return whether the condition holds; also False while a server does not answer."""
    try:
        return condition()
    except OSError:
        return False
