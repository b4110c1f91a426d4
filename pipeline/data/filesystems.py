"""Filesystems of fsspec by URI, and translation of library exceptions into pipeline errors."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError, PartialCredentialsError
from botocore.utils import parse_timestamp
from fsspec.asyn import sync, sync_wrapper
from s3fs import S3FileSystem

from pipeline.errors import AccessDenied, ConfigError, ObjectMissing, StorageError

__all__ = [
    "S3",
    "Transient",
    "already_there",
    "classify",
    "find_local",
    "get_object",
    "join",
    "normalise",
    "open_filesystem",
    "open_s3",
    "require_bucket",
    "split",
]

logger = logging.getLogger(__name__)
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


# Seconds. A peer that is silent for this long counts as lost, and the request is retried.
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
# S3 error codes of requests that failed on their way; they are retried whatever their HTTP status.
_PASSING = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"}
# S3 error codes of expired sessions, whose HTTP status is 400.
_DENIED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}

_NO_ACCESS = (PermissionError, NoCredentialsError, PartialCredentialsError)


class Transient(Exception):
    """Temporary failure that justifies another attempt."""


class BucketMissing(FileNotFoundError):
    """Missing bucket, as opposed to a missing object in a bucket."""


def split(uri: str) -> tuple[str, str]:
    """Return protocol and path of a URI; a plain path has the protocol `file`.

    fsspec's own function is not used, because it gives `::` inside an object's name a meaning.
    """
    protocol, separator, path = uri.partition("://")
    if not separator:
        # Normalized, so that a file has one spelling: `..` in the middle of a path would give it a second one.
        return "file", os.path.normpath(Path(uri).absolute())
    return ("s3" if protocol == "s3a" else protocol), path


def normalise(uri: str) -> str:
    """Return a URI as listings write it: files as absolute plain paths, all else as `protocol://path`."""
    protocol, path = split(uri)
    return path if protocol == "file" else f"{protocol}://{path}"


def join(uri: str, *parts: str) -> str:
    """Return the URI of a path below `uri`."""
    return "/".join([uri.rstrip("/"), *parts])


def open_filesystem(protocol: str) -> Any:
    """Open a filesystem that caches no listings; the one for S3 does not retry by itself.

    Raises:
        ConfigError: If no installed package supports the protocol.
    """
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "s3":
        # A late import: s3fs takes longer to import than everything else here, and files do not need it.
        from pipeline.data.filesystems import open_s3

        return open_s3(CONNECT_TIMEOUT, READ_TIMEOUT, **options)
    try:
        return fsspec.filesystem(protocol, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"no storage for `{protocol}://` ({error}): use s3://, gs://, file:// or a path") from error


def find_local(root: str) -> dict[str, dict[str, Any]]:
    """Return name, size and time of all files below a local folder, by path, through links to files and to folders.

    A link to a folder above itself, a link that leads nowhere, and a folder that cannot be read are left out; a log
    line counts them.
    """
    found = dict[str, dict[str, Any]]()
    passed_over = list[str]()
    # Each path comes with the identities of the folders above it: one of them again is a circle.
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(Path(root), frozenset())]
    while waiting:
        path, above = waiting.pop()
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode):
                entry = {"name": str(path), "type": "file", "size": status.st_size, "mtime": status.st_mtime}
                found[str(path)] = entry
            elif identity in above:
                passed_over.append(f"{path} (a link to a folder above it)")
            elif stat.S_ISDIR(status.st_mode):
                inside = above | {identity}
                waiting += ((child, inside) for child in path.iterdir())
        except OSError as error:
            # A file may disappear during the listing, and the root may not exist.
            if not isinstance(error, FileNotFoundError | NotADirectoryError) or path.is_symlink():
                passed_over.append(f"{path} ({error.strerror})")
    if passed_over:
        logger.warning("not listed below %s: %d entries, such as %s", root, len(passed_over), min(passed_over))
    return found


def get_object(
    filesystem: Any, path: str, start: int | None = None, end: int | None = None
) -> tuple[bytes, str | None]:
    """Return bytes of an object, and the version that the same answer states.

    Args:
        filesystem: Filesystem of fsspec.
        path: Path of the object in the filesystem.
        start: Offset of the first byte; None for the whole object.
        end: Offset behind the last byte; None for the whole object.

    Returns:
        The bytes, and the version (ETag), which is None if the answer states none.
    """
    if "s3" in filesystem.protocol:
        found: tuple[bytes, str | None] = filesystem.get_bytes(path, start, end)
        return found
    # Keyword arguments: the second positional argument of other filesystems is not the start.
    return filesystem.cat_file(path, start=start, end=end), None


def require_bucket(filesystem: Any, path: str) -> None:
    """Raise `BucketMissing` if the bucket of a path does not exist.

    The check distinguishes an empty bucket from a missing one.
    """
    bucket = path.split("/")[0]
    try:
        # Not `exists`: s3fs returns False there for every failure.
        filesystem.info(bucket)
    except FileNotFoundError as error:
        raise BucketMissing(bucket) from error


def classify(error: Exception, action: str, uri: str) -> Exception:
    """Translate a library's exception into `Transient`, or into a `StorageError` with a remedy.

    Args:
        error: Exception of a library.
        action: Verb for the message, such as `read`.
        uri: URI of the object, for the message.
    """
    status, code = _answer(error)
    what = f"cannot {action} {uri}"
    if isinstance(error, BucketMissing) or code == "NoSuchBucket":
        return StorageError(f"{what}: the bucket does not exist; create it or mend the URI")
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return ObjectMissing(f"{what}: there is no such object")
    if isinstance(error, _NO_ACCESS) or status in (401, 403) or code in _DENIED:
        return AccessDenied(f"{what}: access denied ({error}); {_who_may(uri)}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{what}: {error.strerror}; free space or choose another output")
    # Answers 4xx are final, except a timeout (408), throttling (429) and the codes of temporary failures.
    if status is not None and 400 <= status < 500 and status not in (408, 429) and code not in _PASSING:
        return StorageError(f"{what}: refused with HTTP status {status} ({error}); {_who_may(uri)}")
    reason = str(error) or "no end within the time that a request may take"
    return Transient(f"{what}: {type(error).__name__}: {reason}; check the endpoint and the network")


def _who_may(uri: str) -> str:
    """Return the remedy for a refused request."""
    return "check the permissions of the file" if split(uri)[0] == "file" else "check credentials and bucket policy"


def already_there(error: Exception) -> bool:
    """Return whether a create-if-absent request found an existing object.

    S3 answers 412, or 409 while another request creates the object.
    """
    return isinstance(error, FileExistsError) or _answer(error)[0] in (409, 412)


def _answer(error: BaseException | None) -> tuple[int | None, str]:
    """Return HTTP status and error code of the answer behind an exception, or None and an empty code."""
    while error is not None:
        # botocore's exception has the answer; other exceptions may be its wrappers.
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return None if status is None else int(status), str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return None, ""
