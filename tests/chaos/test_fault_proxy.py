"""Tests that every kind of fault does what it states, seen by a client that hides nothing."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos.fault_proxy import Fault, FaultProxy, Request, fault_proxy

BODY = bytes(range(256)) * 4


class _Upstream(BaseHTTPRequestHandler):
    """Server that keeps what is written, and answers with the Host header and the body that arrived."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    hosts: list[str]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        found = self.objects.get(self.path)
        self._answer(404 if found is None else 200, found or b"none")

    def do_HEAD(self) -> None:
        self._answer(200, self.objects[self.path])

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self.send_response_only(204)
        self.end_headers()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("ETag", '"version"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def upstream() -> Iterator[type[_Upstream]]:
    handler = type("Upstream", (_Upstream,), {"objects": {"/b/x": BODY}, "hosts": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    handler.endpoint = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(upstream: type[_Upstream]) -> Iterator[FaultProxy]:
    with fault_proxy(upstream.endpoint) as running:  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=20)
    yield connection
    connection.close()


def ask(
    client: http.client.HTTPConnection, method: str = "GET", path: str = "/b/x", body: bytes | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer, answer.read()


def test_without_faults_requests_pass_on_one_connection(
    client: http.client.HTTPConnection, proxy: FaultProxy, upstream: type[_Upstream]
) -> None:
    client.connect()
    port = client.sock.getsockname()[1]
    client.request("GET", "/b/x", headers={"Host": "signed.example"})
    assert client.getresponse().read() == BODY and upstream.hosts == ["signed.example"], "signatures cover the host"
    assert ask(client, "PUT", "/b/a%2Fb?c=d", b"new")[0].status == 200
    assert upstream.objects["/b/a%2Fb?c=d"] == b"new", "and the path as it was sent"
    assert ask(client, "HEAD")[0].headers["Content-Length"] == str(len(BODY))
    assert ask(client, "DELETE")[0].status == 204
    assert ask(client)[0].status == 404
    assert client.sock.getsockname()[1] == port and not proxy.injected
    assert proxy.requests[0] == Request("GET", "/b/x") and len(proxy.requests) == 5


def test_bodies_in_chunks_and_after_a_continue(proxy: FaultProxy, upstream: type[_Upstream]) -> None:
    host, _, port = proxy.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain, plain.makefile("rb") as answers:
        plain.sendall(b"PUT /b/y HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        plain.sendall(b"3\r\nabc\r\n2;extension=1\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
        answers.readline()
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    assert upstream.objects["/b/y"] == b"abcde"


def test_which_requests_are_hit(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("status", method="GET", path="/x$", after=1, times=2))
    asked = [("GET", "/b/x"), ("PUT", "/b/x"), ("GET", "/b/x"), ("GET", "/b/xx"), ("GET", "/b/x"), ("GET", "/b/x")]
    assert [ask(client, *each, b"")[0].status for each in asked] == [200, 200, 503, 404, 503, 200]
    assert [request for _, request in proxy.injected] == [Request("GET", "/b/x")] * 2
    proxy.inject(Fault("status", times=None))
    assert [ask(client)[0].status for _ in range(3)] == [503] * 3
    proxy.clear()
    assert ask(client)[0].status == 200


def test_status(client: http.client.HTTPConnection, proxy: FaultProxy, upstream: type[_Upstream]) -> None:
    proxy.inject(Fault("status", status=403, code="ExpiredToken"))
    answer, body = ask(client, "PUT", "/b/y", b"never")
    assert answer.status == 403 and b"<Code>ExpiredToken</Code>" in body and "/b/y" not in upstream.objects


def test_latency(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("latency", seconds=0.3))
    started = time.monotonic()
    assert ask(client)[1] == BODY and time.monotonic() - started >= 0.3


def test_reset(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("reset", size=100))
    with pytest.raises(ConnectionResetError):
        ask(client)


def test_truncate(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("truncate", size=100))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(client)
    assert cut.value.partial == BODY[:100] and cut.value.expected == len(BODY) - 100


def test_shorten(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("shorten", size=100))
    answer, body = ask(client)
    assert (answer.status, answer.headers["Content-Length"], body) == (200, "100", BODY[:100])
    assert answer.headers["ETag"] == '"version"'


def test_corrupt(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.inject(Fault("corrupt", size=100))
    _, body = ask(client)
    assert [place for place, byte in enumerate(body) if byte != BODY[place]] == [100] and len(body) == len(BODY)


def test_drop_reply(client: http.client.HTTPConnection, proxy: FaultProxy, upstream: type[_Upstream]) -> None:
    proxy.inject(Fault("drop_reply", method="PUT"))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(client, "PUT", "/b/y", b"landed")
    assert upstream.objects["/b/y"] == b"landed"


def test_stall(proxy: FaultProxy, upstream: type[_Upstream]) -> None:
    proxy.inject(Fault("stall", method="PUT", seconds=30))
    client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=0.3)
    with pytest.raises(TimeoutError):
        ask(client, "PUT", "/b/y", b"never")
    client.close()
    assert "/b/y" not in upstream.objects
