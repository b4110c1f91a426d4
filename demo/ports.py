"""Free ports on loopback for the servers that the demo and the tests start."""

from __future__ import annotations

import random
import socket

__all__ = ["free_ports"]

# Ray gives its workers ports 10002-19999, and the kernel gives clients 32768 and up. Either could take a port between
# the check here and the server's bind, so only the range between them is used.
FIRST = 20000
LAST = 32000
# SeaweedFS adds 10000 to a port to derive a gRPC port that is not set; demo/object_store.py sets all of them.


def free_ports(count: int) -> list[int]:
    """Return `count` distinct ports on 127.0.0.1 that no process listens on at the moment.

    Raises:
        RuntimeError: If too few ports of the range are free.
    """
    candidates = random.SystemRandom().sample(range(FIRST, LAST), k=min(LAST - FIRST, 50 * count))
    found: list[int] = []
    for port in candidates:
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"only {len(found)} of {count} free ports between {FIRST} and {LAST}: close some servers")


def _is_free(port: int) -> bool:
    """Return whether a socket can be bound to the port on 127.0.0.1."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
