"""Helpers that run job scripts as processes: drivers that connect to the tests' cluster."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo.cluster import Cluster
from demo.ports import free_ports
from demo.processes import child_process, wait_until

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finished:
    """Exit code, standard output and standard error of a finished job."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def driver(
    cluster: Cluster, script: str, arguments: Sequence[str], workers_env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a job script, and kill it when the context ends.

    Args:
        cluster: Cluster that the job connects to.
        script: Name of the script in jobs/, without extension.
        arguments: Command line of the job.
        workers_env: Environment variables that Ray gives the job's workers.
    """
    env = {**cluster.env, "RAY_ADDRESS": cluster.address}
    if workers_env:
        # `ray job submit --runtime-env-json` passes them in the same variable.
        env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"env_vars": dict(workers_env)}})
    command = [sys.executable, f"jobs/{script}.py", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run_job(cluster: Cluster, script: str, arguments: Sequence[str], seconds: float = 240) -> Finished:
    """Run a job script to its end."""
    with driver(cluster, script, arguments) as process:
        return finish(process, seconds)


def finish(process: subprocess.Popen[str], seconds: float = 240) -> Finished:
    """Wait for a driver's end."""
    out, err = process.communicate(timeout=seconds)
    return Finished(process.returncode, out, err)


def await_condition(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240) -> None:
    """Wait until `condition` holds; fail with the job's output if the job ends first or `seconds` pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the job ended first:\n{process.stderr.read() if process.stderr else ''}"
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.05)


def await_line(process: subprocess.Popen[str], start: str) -> None:
    """Read a job's output until a line begins with `start`; pytest's own limit bounds the wait."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"the job ended without a line {start!r}: {process.stderr.read() if process.stderr else ''}")


@dataclass(frozen=True)
class Node:
    """Raylet beside the head's."""

    cluster: Cluster
    id: str
    address: str

    def raylets(self) -> list[psutil.Process]:
        """Return the raylet of the node; an empty list if it has ended."""
        return [each for each in ray_processes(f"node_ip_address={self.address}") if each.name() == "raylet"]

    def announce_preemption(self, seconds: int = 60) -> None:
        """Drain the node with a deadline in `seconds`, as an autoscaler does when a cloud reclaims a machine."""
        command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--address", self.cluster.address]
        command += ["--node-id", self.id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command += ["--deadline-remaining-seconds", str(seconds)]
        subprocess.run(command, env=self.cluster.env, check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def joined_node(cluster: Cluster, folder: Path, *, cpus: int, address: str = "127.0.0.2") -> Iterator[Node]:
    """Add a node of `cpus` CPUs to the tests' cluster, and remove it when the context ends.

    Args:
        cluster: Cluster that the node joins.
        folder: Folder for the node's output.
        cpus: Number of logical CPUs that Ray may schedule on the node.
        address: Loopback address of the node; no node of the cluster may have had it before.

    Raises:
        RuntimeError: If the node does not join; the message contains its output.
    """
    with contextlib.ExitStack() as stack:
        # Ray gives a new node 30 seconds, which cannot be configured and is sometimes too short on busy cores: try
        # again.
        for tries_left in (2, 1, 0):
            log = folder / f"node-{address}-{tries_left}.log"
            command = _node_command(cluster, cpus, address)
            process = stack.enter_context(child_process(command, log=log, env=cluster.env))
            try:
                # The dashboard learns of each node with a delay.
                wait_until(lambda: address in _nodes(cluster), what=f"the node {address}", seconds=90, process=process)
                break
            except RuntimeError as error:
                if not tries_left or "timed out during startup" not in log.read_text():
                    raise RuntimeError(f"{error}; its output:\n{log.read_text()[-2000:]}") from error
        yield Node(cluster, _nodes(cluster)[address], address)


def _node_command(cluster: Cluster, cpus: int, address: str) -> list[str]:
    names = ("node-manager-port", "object-manager-port", "metrics-export-port", "runtime-env-agent-port")
    names += ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    ports = [f"--{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)]
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--address={cluster.address}"]
    # The node needs its own address, or drivers could not distinguish it from the head.
    return [
        *command,
        f"--num-cpus={cpus}",
        f"--node-ip-address={address}",
        f"--object-store-memory={128 * 2**20}",
        *ports,
    ]


def _nodes(cluster: Cluster) -> dict[str, str]:
    """Return the id of each living node by its address."""
    token = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    url = f"{cluster.dashboard}/nodes?view=summary"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        raylets = [node["raylet"] for node in json.load(reply)["data"]["summary"]]
    return {each["nodeManagerAddress"]: each["nodeId"] for each in raylets if each.get("state") == "ALIVE"}


def ray_processes(title: str) -> list[psutil.Process]:
    """Return this session's Ray processes whose command line contains `title`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found
