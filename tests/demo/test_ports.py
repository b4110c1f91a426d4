"""Tests that ports are free, distinct, and outside Ray's range."""

from __future__ import annotations

import socket

import pytest

from demo import ports


def test_ports_are_free_distinct_and_outside_of_other_ranges() -> None:
    found = ports.free_ports(12)
    assert len(set(found)) == 12
    for port in found:
        assert not 10002 <= port <= 19999 and port < 32768
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST", taken)
        monkeypatch.setattr(ports, "LAST", taken + 1)
        with pytest.raises(RuntimeError, match="0 of 1 free ports"):
            ports.free_ports(1)
