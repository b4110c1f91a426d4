"""Mock bucket in a process of its own, so that its memory and time do not count towards the measured process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.scale.server import CONTROL

__all__ = ["Numbers", "Remote", "credentials", "served"]

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Remote:
    """Client of a running `benchmarks.scale.server`.

    Attributes:
        url: URL of the server.
    """

    url: str

    def make_up(self, prefix: str, count: int, name: str) -> None:
        """Add generated names to listings and look-ups.

        Args:
            prefix: Prefix of all names.
            count: Number of names.
            name: Format of the rest of a name, with the fields `n` and `folder` (n / 100,000).
        """
        order = json.dumps({"prefix": prefix, "count": count, "name": name}).encode()
        self._ask(urllib.request.Request(f"{self.url}{CONTROL}made-up", order, method="PUT"))

    def counts(self) -> dict[str, int]:
        """Return requests by kind since the last call.

        LIST counts every listing, including those by which s3fs looks up one name.
        """
        return dict(sorted(json.loads(self._ask(f"{self.url}{CONTROL}counts")).items()))

    def measure(self, kind: str, *numbers: int) -> Numbers:
        """Run one of `benchmarks.scale.measurements` in a process of its own, and return its figures."""
        command = [sys.executable, "-m", "benchmarks.scale.measurements", kind, *map(str, numbers)]
        environment = os.environ | credentials(self.url)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found: Numbers = json.loads(done.stdout.splitlines()[-1])
        return found

    def _ask(self, request: urllib.request.Request | str) -> bytes:
        """Send a request and return the body of the response."""
        with urllib.request.urlopen(request) as answer:
            data: bytes = answer.read()
        return data


def credentials(url: str) -> dict[str, str]:
    """Return environment variables that send S3 clients to a server."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": url, **keys}


@contextlib.contextmanager
def served() -> Iterator[Remote]:
    """Start a mock server whose objects lie in a temporary folder, and stop it when the context ends."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        command = [sys.executable, "-m", "benchmarks.scale.server", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                yield Remote(process.stdout.readline().strip())
            finally:
                process.stdin.close()
