"""S3 through s3fs, with an end to every request: servers that are slow, stopped or cut off are noticed in time."""

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

# Bytes a second: what is slower than this on the whole is given up.
SLOWEST = 100_000
# A listing of an empty bucket has these too.
_ALWAYS_LISTED = {"Name", "IsTruncated"}


def open_s3(connect_timeout: float, read_timeout: float, **options: Any) -> S3:
    """A filesystem of the servers that the AWS environment variables name; it retries nothing by itself.

    Args:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds of silence, in either direction, after which a peer is treated as gone.
        options: of fsspec.
    """
    # One attempt in botocore and in s3fs: the only policy that retries is Storage's. One request a read.
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
    """s3fs, with limits to the time that a request takes, and without empty answers that pass for empty listings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Not passed as an option: options travel to other processes, and no session survives that.
        self.session = _session(**self.kwargs)

    async def _call_s3(self, method: str, *options: Any, **arguments: Any) -> Any:
        async with asyncio.timeout(self._longest(len(arguments.get("Body", b"")))):
            answer = await super()._call_s3(method, *options, **arguments)
        if method == "list_objects_v2" and not _ALWAYS_LISTED & answer.keys():
            # Without a body the parser finds no names, and no sign of a next page: never take that for the end.
            raise OSError(errno.EIO, "the server answered a listing with nothing")
        return answer

    # s3fs binds its own.
    call_s3: Callable[..., Any] = sync_wrapper(_call_s3)

    def get_bytes(self, path: str, start: int | None = None, end: int | None = None) -> tuple[bytes, str | None]:
        """Bytes from `start` to `end`, or all, and the version (ETag) that the answer names, if it names one."""
        return sync(self.loop, self._get_bytes, path, start, end)

    async def _get_bytes(self, path: str, start: int | None, end: int | None) -> tuple[bytes, str | None]:
        bucket, _, key = path.partition("/")
        wanted = {} if start is None or end is None else {"Range": f"bytes={start}-{end - 1}"}
        answer = await self._call_s3("get_object", Bucket=bucket, Key=key, **wanted)
        async with answer["Body"] as body, asyncio.timeout(self._longest(answer.get("ContentLength", 0))):
            data = await body.read()
        return data, str(answer["ETag"]).strip('"') if answer.get("ETag") else None

    def _longest(self, size: int) -> float:
        limits = self.config_kwargs
        return float(limits["connect_timeout"] + limits["read_timeout"] + size / SLOWEST)


def _session(**options: Any) -> AioSession:
    session = AioSession(**options)
    # Every name in a listing has a time. botocore guesses each one's format, which takes longer than all else there.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return session


def _time(value: Any) -> datetime:
    """A time as storage writes it in a listing, such as 2026-01-31T10:20:30.000Z; all other forms as botocore does."""
    if isinstance(value, str) and value.endswith("Z"):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    parsed: datetime = parse_timestamp(value)
    return parsed


def _socket(seconds: float, address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    # The HTTP client has no limit for a peer that takes no bytes: only the kernel, where it can, notices that one.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
    return made
