"""Hosts on one machine: network namespaces on one switch, each with its own address."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Host", "Network", "network", "private_network"]

_ENTER = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
_END_SECONDS = 20.0


@dataclass(frozen=True)
class Host:
    """Simulated machine with its own names, addresses, ports and processes.

    Attributes:
        name: Host name.
        address: IP address on the network that all hosts share.
        namespace: Name of the kernel's network namespace.
        cable: Network interface at the switch's end of the cable.
        names: Path of the host's /etc/hosts.
    """

    name: str
    address: str
    namespace: str
    cable: str
    names: Path

    def command(self, program: Sequence[str]) -> list[str]:
        """Return the command line that runs `program` on this host."""
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c", _ENTER, "host"]
        return [*enter, self.name, str(self.names), *program]

    def pids(self) -> list[int]:
        """Return the ids of all processes on this host."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def cut(self) -> None:
        """Disconnect the cable without notice: data in transit are lost, and the host's processes continue."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        """Undo `cut`."""
        _ip("link", "set", self.cable, "up")

    def turn_from(self, other: Host) -> None:
        """Drop all packets from this host to one other host."""
        _ip("-netns", self.namespace, "route", "add", "blackhole", f"{other.address}/32")

    def turn_back(self, other: Host) -> None:
        """Undo `turn_from`."""
        _ip("-netns", self.namespace, "route", "delete", "blackhole", f"{other.address}/32")

    def kill(self, seconds: float = _END_SECONDS) -> None:
        """Kill every process on this host.

        Raises:
            RuntimeError: If processes are left after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while pids := self.pids():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {pids} of {self.name} cannot be killed")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@dataclass(frozen=True)
class Network:
    """Switch with the hosts connected to it.

    Attributes:
        address: IP address of this process, which is connected to the switch itself.
        hosts: Hosts in the order of the given names.
    """

    address: str
    hosts: tuple[Host, ...]


@contextlib.contextmanager
def network(names: Sequence[str], folder: Path) -> Iterator[Network]:
    """Make one host per name; kill their processes and remove the network when the context ends.

    Args:
        names: Names of the hosts.
        folder: Folder for the /etc/hosts file of each host.
    """
    # Names of kernel objects contain an id of this run; the name of an interface may have 15 characters.
    run = secrets.token_hex(3)
    subnet = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"
    addresses = {name: f"{subnet}.{10 + place}" for place, name in enumerate(names)}
    with contextlib.ExitStack() as stack:
        switch = f"sw-{run}"
        _made(stack, ("link", "add", switch, "type", "bridge"), ("link", "delete", switch))
        _ip("address", "add", f"{subnet}.1/24", "dev", switch)
        _ip("link", "set", switch, "up")
        hosts = []
        for place, (name, address) in enumerate(addresses.items()):
            host = Host(name, address, f"{name}-{run}", f"c{place}-{run}", _names(name, addresses, folder))
            _connect(stack, host, switch)
            hosts.append(host)
        yield Network(f"{subnet}.1", tuple(hosts))


def _names(own: str, addresses: Mapping[str, str], folder: Path) -> Path:
    """Write a host's /etc/hosts in Debian's form, where its own name is an address that no other host reaches."""
    table = {"localhost": "127.0.0.1", **addresses, own: "127.0.1.1"}
    file = folder / f"{own}-hosts"
    file.write_text("".join(f"{address} {name}\n" for name, address in table.items()))
    return file


def private_network() -> bool:
    """Return whether this process sees only its own loopback, so that the machine's network cannot be affected."""
    names = [line.split(": ")[1] for line in _ip("-oneline", "link", "show", "up").splitlines()]
    return names == ["lo"]


def _connect(stack: contextlib.ExitStack, host: Host, switch: str) -> None:
    _made(stack, ("netns", "add", host.namespace), ("netns", "delete", host.namespace))
    cable = ("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    _made(stack, cable, ("link", "delete", host.cable))
    stack.callback(host.kill)
    _ip("link", "set", host.cable, "master", switch, "up")
    for inside in (
        ("address", "add", f"{host.address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip("-netns", host.namespace, *inside)


def _made(stack: contextlib.ExitStack, make: Sequence[str], remove: Sequence[str]) -> None:
    _ip(*make)
    stack.callback(_ip, *remove)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
