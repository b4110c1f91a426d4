"""A Ray cluster of one machine with its dashboard on loopback, token authentication on, gone when left."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.ports import free_ports
from demo.processes import child_process, wait_until

__all__ = ["Cluster", "local_cluster"]

_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
    "object-manager-port",
)


# What the client says of itself: how to ask for logs, that the job was submitted, that it has succeeded.
_CHATTER = re.compile(r"\S+ \S+\s(?:(?:INFO|SUCC|WARN) cli|INFO job_manager)\.py:|\[.* logging\.cc:|Running entrypoint")


@dataclass(frozen=True)
class Cluster:
    """A running head node.

    Attributes:
        dashboard: address for `ray job submit`.
        address: for a driver of its own, as `RAY_ADDRESS`.
        env: the environment in which ray's commands reach it.
        log: where their own messages go.
    """

    dashboard: str
    address: str
    env: Mapping[str, str]
    log: Path

    def submit(self, script: Sequence[str], working_dir: Path) -> int:
        """Runs `ray job submit` in the foreground, the job's output on ours; returns its exit code."""
        command = [_ray(), "job", "submit", "--address", self.dashboard, "--working-dir", str(working_dir), "--"]
        # A pipe makes Python buffer by default, and progress would come in heaps.
        env = {**self.env, "PYTHONUNBUFFERED": "1"}
        with (
            self.log.open("a") as log,
            subprocess.Popen([*command, *script], env=env, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True, file=log if _CHATTER.match(line) else sys.stdout)
                return process.wait()
            except BaseException:
                process.terminate()
                raise


@contextlib.contextmanager
def local_cluster(log: Path, *, cpus: int, start_seconds: float = 120.0) -> Iterator[Cluster]:
    """Starts a head node with `cpus` logical CPUs and stops it on leaving.

    Raises:
        RuntimeError: if it does not answer within `start_seconds`.
    """
    # Sockets lie below this folder, and their paths must stay under 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            # As many Python processes as CPUs at each driver's start, most of them for nothing.
            "RAY_prestart_worker_first_driver": "0",
        }
        # Jobs inherit this: the interpreter of this environment, and the credentials of the object store.
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        # An address left in the environment would send our commands to somebody else's cluster.
        env.pop("RAY_ADDRESS", None)
        with child_process(_start_command(folder, ports, cpus), log=log, env=env) as process:
            dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
            secret = token.read_text()
            wait_until(lambda: _answers(dashboard, secret), what="Ray", seconds=start_seconds, process=process)
            yield Cluster(dashboard, f"127.0.0.1:{ports['port']}", env, log)


def _start_command(folder: str, ports: Mapping[str, int], cpus: int) -> list[str]:
    options = [f"--{name}={port}" for name, port in ports.items()]
    return [
        *(_ray(), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(
            f"--num-cpus={cpus}",
            f"--temp-dir={folder}",
            "--disable-usage-stats",
            f"--object-store-memory={512 * 2**20}",
        ),
        *options,
    ]


def _answers(dashboard: str, token: str) -> bool:
    request = urllib.request.Request(f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")
