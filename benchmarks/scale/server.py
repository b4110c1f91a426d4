"""Mock S3 server that generates names by the million, keeps what is written to it, and counts requests.

    python -m benchmarks.scale.server FOLDER

The server prints its address, keeps objects in the folder, and ends with its standard input. It has one bucket of any
name, and the part of S3 that a run needs: ListObjectsV2, and GET, HEAD, PUT (also "create, never replace") and DELETE
of whole objects.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["CONTROL", "Server"]

CONTROL = "/-/"
# Odd, so that all versions differ, and large, so that they compress as badly as real digests do.
_MIXER = 0x9E3779B97F4A7C15F39CC0605CEDC835
_XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True)
class _Entry:
    """Object in the bucket; one without a file is generated and has no bytes."""

    key: str
    size: int
    version: str
    file: Path | None = None

    def xml(self) -> str:
        """Return the object's element of a ListObjectsV2 response."""
        return (
            f"<Contents><Key>{escape(self.key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{self.version}&quot;</ETag><Size>{self.size}</Size><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
        )


@dataclass(frozen=True)
class _MadeUp:
    """Generated names without bytes.

    Attributes:
        prefix: Prefix of all names.
        count: Number of names.
        name: Format of the rest of a name, with the fields `n`, below `count`, and `folder` = n / 100,000.
    """

    prefix: str
    count: int
    name: str

    def entry(self, n: int) -> _Entry:
        """Return the object number `n`."""
        key = self.prefix + self.name.format(n=n, folder=n // 100_000)
        return _Entry(key, 9000 + n, f"{n * _MIXER % 2**128:032x}")

    def find(self, key: str) -> _Entry | None:
        """Return the generated object of this key, or None; the key's digits give its number."""
        numbers = (int(digits) for digits in re.findall(r"\d+", key)) if key.startswith(self.prefix) else ()
        found = (self.entry(n) for n in numbers if n < self.count)
        return next((entry for entry in found if entry.key == key), None)


class Server(ThreadingHTTPServer):
    """HTTP server on a free port of this machine.

    Args:
        folder: Folder for the bytes of objects.

    Attributes:
        made_up: Generated names, in the order in which they were added.
        stored: Written objects by key.
        counts: Requests by kind since they were last asked for.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.lock = threading.Lock()
        self.made_up: list[_MadeUp] = []
        self.stored: dict[str, _Entry] = {}
        self.counts: Counter[str] = Counter()

    def put(self, key: str, data: bytes, *, create: bool) -> _Entry | None:
        """Store an object and return it; return None if `create` is set and the key exists."""
        file = self.folder / hashlib.sha256(key.encode()).hexdigest()
        entry = _Entry(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), file)
        with self.lock:
            if create and key in self.stored:
                return None
            file.write_bytes(data)
            self.stored[key] = entry
        return entry

    def find(self, key: str) -> _Entry | None:
        """Return the object of this key, stored or generated, or None."""
        made_up = (entry for names in self.made_up if (entry := names.find(key)) is not None)
        return self.stored.get(key) or next(made_up, None)

    def entries(self, prefix: str, first: int) -> Iterator[_Entry]:
        """Yield objects below a prefix from number `first` on: generated ones, then stored ones."""
        for names in self.made_up:
            if names.prefix.startswith(prefix):
                yield from map(names.entry, range(first, names.count))
                first = max(0, first - names.count)
        with self.lock:
            found = sorted(key for key in self.stored if key.startswith(prefix))
        yield from (self.stored[key] for key in found[first:])


class _Handler(BaseHTTPRequestHandler):
    """Handler of S3 requests, and of control requests below `/-/`."""

    protocol_version = "HTTP/1.1"
    # Send each response in one piece: a separate body would wait for the client's acknowledgment of the header.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Respond with an object, a listing, or the counts of requests, which it resets."""
        if self.path.startswith(CONTROL):
            with self.server.lock:
                body = json.dumps(self.server.counts).encode()
                self.server.counts.clear()
            self._answer(200, body)
        elif self._key():
            self._object("GET")
        else:
            self._listing()

    def do_HEAD(self) -> None:
        """Respond with the header of an object."""
        self._object("HEAD")

    def do_PUT(self) -> None:
        """Store an object, or add generated names (control request)."""
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith(CONTROL):
            self.server.made_up.append(_MadeUp(**json.loads(data)))
            return self._answer(200)
        self._count("PUT")
        entry = self.server.put(self._key(), data, create=self.headers.get("If-None-Match") == "*")
        return self._answer(412, _error("PreconditionFailed")) if entry is None else self._answer(200, entry=entry)

    def do_DELETE(self) -> None:
        """Delete an object."""
        self._count("DELETE")
        self.server.stored.pop(self._key(), None)
        self._answer(204)

    def handle_expect_100(self) -> bool:
        """Send "100 Continue" at once."""
        going_on = super().handle_expect_100()
        # The client sends the body only after it has received this line.
        self.wfile.flush()
        return going_on

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _key(self) -> str:
        """Return the requested key without the bucket's name; empty for the bucket itself."""
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _count(self, kind: str) -> None:
        with self.server.lock:
            self.server.counts[kind] += 1

    def _object(self, kind: str) -> None:
        self._count(kind)
        entry = self.server.find(self._key())
        # A HEAD request for the bucket itself always succeeds.
        if entry is None and self._key():
            self._answer(404, _error("NoSuchKey"))
        else:
            self._answer(200, entry.file.read_bytes() if kind == "GET" and entry and entry.file else b"", entry)

    def _listing(self) -> None:
        """Respond to ListObjectsV2; the continuation token is the number of the next object."""
        self._count("LIST")
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        first = int(query.get("continuation-token", 0))
        most = int(query.get("max-keys", 1000))
        page = list(islice(self.server.entries(query.get("prefix", ""), first), most + 1))
        more = len(page) > most
        token = f"<NextContinuationToken>{first + most}</NextContinuationToken>" if more else ""
        body = (
            f'<?xml version="1.0"?><ListBucketResult xmlns="{_XMLNS}"><Name>bucket</Name>'
            f"<KeyCount>{len(page[:most])}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(entry.xml() for entry in page[:most])}</ListBucketResult>"
        )
        self._answer(200, body.encode())

    def _answer(self, status: int, body: bytes = b"", entry: _Entry | None = None) -> None:
        """Send status, headers and body; a HEAD response states the size of the object, without a body."""
        self.send_response_only(status)
        self.send_header("Content-Length", str(entry.size if entry and self.command == "HEAD" else len(body)))
        if entry is not None:
            self.send_header("ETag", f'"{entry.version}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
