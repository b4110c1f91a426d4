"""Free ports on loopback for the servers that the demo and the tests start."""

from __future__ import annotations

import random
import socket

__all__ = ["free_ports"]

# Ray hands its workers 10002-19999, and the kernel hands clients 32768 and up: both may take a port between
# our look and the server's bind, so only the range between them is used.
FIRST, LAST = 20000, 32000
# SeaweedFS derives gRPC ports by adding 10000 to any that are not set; all of ours are set.


def free_ports(count: int) -> list[int]:
    """Returns `count` distinct ports on 127.0.0.1 that nothing listens on at the moment.

    Raises:
        RuntimeError: if the range is exhausted.
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
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
