"""S3 through s3fs, with a deadline on every request.

Servers that are slow, stopped or disconnected are thus noticed in time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp
from fsspec.asyn import sync, sync_wrapper
from s3fs import S3FileSystem

__all__ = ["S3", "open_s3"]

# Bytes per second. A request whose average rate is lower is aborted.
SLOWEST = 100_000
# Keys of every listing, even that of an empty bucket.
_ALWAYS_LISTED = {"Name", "IsTruncated"}


def open_s3(connect_timeout: float, read_timeout: float, **options: Any) -> S3:
    """Open a filesystem of the servers in the AWS environment variables; it does not retry by itself.

    Args:
        connect_timeout: Longest wait for a connection, in seconds.
        read_timeout: Longest silence in either direction, in seconds, after which a peer counts as lost.
        **options: Options of the fsspec filesystem.
    """
    # One attempt in botocore and in s3fs: only the policy of `Storage` retries. A read is one request
    # (`max_concurrency`).
    config = {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "max_pool_connections": 64,
        "connector_args": {"socket_factory": partial(_socket, read_timeout)},
    }
    filesystem = S3(config_kwargs=config, max_concurrency=1, **options)
    filesystem.retries = 1
    return filesystem


class S3(S3FileSystem):
    """S3 filesystem with a deadline on every request, which refuses empty answers to listings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Not passed as an option: options are sent to other processes, but a session cannot be sent.
        self.session = _session(**self.kwargs)

    async def _call_s3(self, method: str, *options: Any, **arguments: Any) -> Any:
        """Call a method of S3 with a deadline that depends on the size of the body.

        Raises:
            TimeoutError: If the request takes too long.
            OSError: If the server answers a listing with nothing.
        """
        async with asyncio.timeout(self._longest(len(arguments.get("Body", b"")))):
            answer = await super()._call_s3(method, *options, **arguments)
        if method == "list_objects_v2" and not _ALWAYS_LISTED & answer.keys():
            # The parser reads an answer without a body as a listing without names and without a next page. It must not
            # count as the end of the listing.
            raise OSError(errno.EIO, "the server answered a listing with nothing")
        return answer

    # s3fs binds its own `_call_s3`, so the synchronous form is bound again.
    call_s3: Callable[..., Any] = sync_wrapper(_call_s3)

    def get_bytes(self, path: str, start: int | None = None, end: int | None = None) -> tuple[bytes, str | None]:
        """Return bytes of an object, and the version (ETag) that the same answer states.

        Args:
            path: Bucket and key of the object.
            start: Offset of the first byte; None for the whole object.
            end: Offset behind the last byte; None for the whole object.

        Returns:
            The bytes, and the version, which is None if the answer states none.
        """
        return sync(self.loop, self._get_bytes, path, start, end)

    async def _get_bytes(self, path: str, start: int | None, end: int | None) -> tuple[bytes, str | None]:
        bucket, _, key = path.partition("/")
        wanted = {} if start is None or end is None else {"Range": f"bytes={start}-{end - 1}"}
        answer = await self._call_s3("get_object", Bucket=bucket, Key=key, **wanted)
        async with answer["Body"] as body, asyncio.timeout(self._longest(answer.get("ContentLength", 0))):
            data = await body.read()
        return data, str(answer["ETag"]).strip('"') if answer.get("ETag") else None

    def _longest(self, size: int) -> float:
        """Return the deadline, in seconds, of a request that transfers `size` bytes."""
        limits = self.config_kwargs
        return float(limits["connect_timeout"] + limits["read_timeout"] + size / SLOWEST)


def _session(**options: Any) -> AioSession:
    """Return a session that parses the times in listings fast."""
    session = AioSession(**options)
    # Every name in a listing has a time. botocore guesses the format of each, which takes longer than the rest of a
    # listing.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return session


def _time(value: Any) -> datetime:
    """Parse a time of a listing, such as 2026-01-31T10:20:30.000Z; botocore parses all other forms."""
    if isinstance(value, str) and value.endswith("Z"):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    parsed: datetime = parse_timestamp(value)
    return parsed


def _socket(seconds: float, address: tuple[Any, ...]) -> socket.socket:
    """Open a socket that fails if its peer accepts no bytes for `seconds`."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    # The HTTP client has no limit for a peer that accepts no bytes. Only the kernel can detect it, where it has this
    # option, in milliseconds.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
    return made
