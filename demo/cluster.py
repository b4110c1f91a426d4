"""Ray cluster on loopback with dashboard and token authentication, stopped when its context ends."""

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


# Messages of the job client itself: how to read logs, and that the job was submitted or has succeeded.
_CHATTER = re.compile(r"\S+ \S+\s(?:(?:INFO|SUCC|WARN) cli|INFO job_manager)\.py:|\[.* logging\.cc:|Running entrypoint")


@dataclass(frozen=True)
class Cluster:
    """Running head node.

    Attributes:
        dashboard: Dashboard URL, the address for `ray job submit`.
        address: Address (host:port) for a driver that connects by itself, as in `RAY_ADDRESS`.
        env: Environment variables with which Ray's commands reach the cluster.
        log: File that receives the messages of Ray and of its job client.
    """

    dashboard: str
    address: str
    env: Mapping[str, str]
    log: Path

    def submit(self, script: Sequence[str], working_dir: Path) -> int:
        """Run `ray job submit` in the foreground, print the job's output, and return the exit code.

        Args:
            script: Command line of the job.
            working_dir: Folder that Ray uploads as the job's working directory.
        """
        command = [_ray(), "job", "submit", "--address", self.dashboard, "--working-dir", str(working_dir), "--"]
        # Python buffers its output to a pipe by default, which would delay progress lines.
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
    """Start a head node with `cpus` logical CPUs, and stop it when the context ends.

    Args:
        log: File that receives the output of Ray.
        cpus: Number of logical CPUs that Ray may schedule.
        start_seconds: Longest time in seconds until the dashboard must answer.

    Yields:
        The running cluster.

    Raises:
        RuntimeError: If the dashboard does not answer within `start_seconds`.
    """
    # Ray puts its sockets below this folder, and a socket's path must stay under 107 bytes.
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
            # By default Ray starts one Python process per CPU with each driver; most of them would never be used.
            "RAY_prestart_worker_first_driver": "0",
        }
        # Jobs inherit this environment: the Python interpreter and the credentials of the object store.
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        # A RAY_ADDRESS left in the environment would send these commands to another cluster.
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
    """Return whether the dashboard's job API replies with status 200 to the token."""
    request = urllib.request.Request(f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ray() -> str:
    """Return the path of the `ray` program in this Python environment."""
    return str(Path(sys.executable).parent / "ray")
