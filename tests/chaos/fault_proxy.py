"""HTTP proxy in front of an S3 server that breaks requests on demand; it uses one thread per connection on loopback."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultProxy", "Request", "fault_proxy", "random_fault", "random_weather"]

Kind = Literal["latency", "reset", "status", "truncate", "shorten", "stall", "drop_reply", "corrupt"]
_UPSTREAM_SECONDS = 60  # time limit for the upstream server's answer; the proxy waits for nothing longer
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """Request of a client."""

    method: str
    path: str


@dataclass(frozen=True)
class Fault:
    """Fault, and the requests that it hits.

    Attributes:
        kind: latency: the answer is late. reset: the connection is reset after `size` bytes of the answer's body.
            status: the proxy refuses with `status` and S3's error `code`, and the upstream server receives nothing.
            truncate: the body ends after `size` bytes, but the true length is stated. shorten: the body ends there, and
            the shorter length is stated. stall: the connection ends after `seconds` without an answer, and the upstream
            server receives nothing. drop_reply: the request is carried out, but never answered. corrupt: byte `size` of
            the body is changed, to another value each time.
        method: HTTP method of the requests to hit; empty: any.
        path: Regular expression found in the path of the requests to hit, query included.
        times: Number of requests to hit; None: all.
        after: Number of matching requests to let through first.
        status: HTTP status of `status` faults.
        code: S3 error code of `status` faults.
        seconds: Delay of `latency` and `stall` faults.
        size: Position in the body in bytes.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    times: int | None = 1
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.1
    size: int = 0

    def matches(self, request: Request) -> bool:
        return self.method in ("", request.method) and re.search(self.path, request.path) is not None


class FaultProxy:
    """Running proxy; it is safe to use from any thread.

    Attributes:
        endpoint: URL for clients.
        requests: Requests that arrived.
        injected: Faults, each with the request that it hit.
        rewrite: Function from (header, value) of an answer to the value that is passed on.
    """

    def __init__(self, upstream: str, server: ThreadingHTTPServer) -> None:
        self.upstream = urlsplit(upstream)
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        self.requests: list[Request] = []
        self.injected: list[tuple[Fault, Request]] = []
        self.ending = threading.Event()
        self.rewrite: Callable[[str, str], str] = lambda header, value: value
        self._faults: list[Fault] = []
        self._weather: Callable[[Request], Fault | None] = lambda request: None
        self._lock = threading.Lock()

    def inject(self, *faults: Fault) -> None:
        """Add faults to those that are active."""
        with self._lock:
            self._faults += faults

    def storm(self, weather: Callable[[Request], Fault | None]) -> None:
        """Set the function that chooses a fault for each request that no other fault hits."""
        with self._lock:
            self._weather = weather

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults = []
            self._weather = lambda request: None

    def fault_for(self, request: Request) -> Fault | None:
        """Record the request, and return the first fault that hits it, with its count reduced; None: no fault."""
        with self._lock:
            self.requests.append(request)
            for place, fault in enumerate(self._faults):
                if not fault.matches(request) or fault.times == 0:
                    continue
                if fault.after:
                    self._faults[place] = replace(fault, after=fault.after - 1)
                    continue
                if fault.times is not None:
                    self._faults[place] = replace(fault, times=fault.times - 1)
                break
            else:
                fault = self._weather(request)
            if fault is not None:
                self.injected.append((fault, request))
            return fault


def random_fault(rng: random.Random) -> Fault:
    """Return a random fault after which a client can repeat the request at once."""
    kinds: tuple[Kind, ...] = ("latency", "reset", "status", "truncate", "shorten", "drop_reply", "corrupt")
    return Fault(rng.choice(kinds), size=rng.randrange(100), seconds=rng.random() / 20)


def random_weather(seed: int, share: float) -> Callable[[Request], Fault | None]:
    """Return a function that breaks a share of requests at random.

    The same requests in the same order get the same faults.
    """
    rng = random.Random(seed)
    return lambda request: random_fault(rng) if rng.random() < share else None


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Start a proxy in front of the server at the URL `upstream`; it changes nothing until a fault is added."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = FaultProxy(upstream, server)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.proxy
    finally:
        server.proxy.ending.set()
        server.shutdown()
        server.server_close()


def _passed_on(header: str) -> bool:
    """Return whether a header of an answer is passed on.

    Checksums are not: an S3 server need not send any, and the library that checks them is not under test.
    """
    return header not in _HOP_BY_HOP and not header.startswith("x-amz-checksum")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close the connection, which the faults provoke."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        request = Request(self.command, self.path)
        body = self._body()
        proxy = self.server.proxy
        fault = proxy.fault_for(request)
        if fault is None or fault.kind not in ("status", "stall"):
            if fault is not None and fault.kind == "latency":
                proxy.ending.wait(fault.seconds)
            self._answer(fault, *self._forward(body))
        elif fault.kind == "status":
            self._refuse(fault)
        else:
            proxy.ending.wait(fault.seconds)
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while (length := int(self.rfile.readline().split(b";")[0], 16)) > 0:
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request upstream with host and path unchanged, because the client signed them."""
        upstream = self.server.proxy.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=_UPSTREAM_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {*_HOP_BY_HOP, "expect"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [pair for pair in answer.getheaders() if _passed_on(pair[0].lower())]
            if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
                headers.append(("Content-Length", length))
            return answer.status, headers, answer.read()

    def _answer(self, fault: Fault | None, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        kind = None if fault is None else fault.kind
        if kind == "drop_reply":
            self.close_connection = True
            return
        size = len(body) if fault is None else min(fault.size, len(body))
        if kind == "corrupt" and body:
            size = min(size, len(body) - 1)
            body = body[:size] + bytes([body[size] ^ self._flip()]) + body[size + 1 :]
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, self.server.proxy.rewrite(name, value))
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(size if kind == "shorten" else len(body)))
        self.end_headers()
        cut = kind in ("reset", "truncate", "shorten")
        self.wfile.write(body[:size] if cut else body)
        if cut and kind != "shorten":
            self._end(reset=kind == "reset")

    def _flip(self) -> int:
        """Return a bit mask that is never 0 and changes each time."""
        return 1 + len(self.server.proxy.injected) % 255

    def _refuse(self, fault: Fault) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _end(self, *, reset: bool) -> None:
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
