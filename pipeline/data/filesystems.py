"""From a URI to its fsspec filesystem, and from a library's exceptions to ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import NoCredentialsError, PartialCredentialsError
from fsspec.asyn import sync

from pipeline.errors import AccessDenied, ConfigError, ObjectMissing, StorageError

__all__ = ["Transient", "already_there", "classify", "get_object", "join", "normalise", "open_filesystem", "split"]

# Seconds. A peer that says nothing for this long is treated as gone, and the request is tried again.
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60


class Transient(Exception):
    """A failure that may pass: worth another attempt."""


def split(uri: str) -> tuple[str, str]:
    """Protocol and path of a URI; a plain path is a file.

    fsspec's own splitting is not used: it gives `::` inside an object's name a meaning.
    """
    protocol, separator, path = uri.partition("://")
    if not separator:
        # One spelling for one file: `..` in the middle would make two of it.
        return "file", os.path.normpath(Path(uri).absolute())
    return ("s3" if protocol == "s3a" else protocol), path


def normalise(uri: str) -> str:
    """The form in which listings name an object: files as absolute plain paths, all else `protocol://path`."""
    protocol, path = split(uri)
    return path if protocol == "file" else f"{protocol}://{path}"


def join(uri: str, *parts: str) -> str:
    """A URI below `uri`."""
    return "/".join([uri.rstrip("/"), *parts])


def open_filesystem(protocol: str) -> Any:
    """A filesystem that caches no listings and retries nothing by itself.

    Raises:
        ConfigError: if no installed package serves the protocol.
    """
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "s3":
        # One attempt in botocore and in s3fs: the only policy that retries is Storage's. One request a read.
        config = {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "max_pool_connections": 64,
        }
        options |= {"config_kwargs": config, "max_concurrency": 1}
    try:
        filesystem = fsspec.filesystem(protocol, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"no storage for `{protocol}://` ({error}): use s3://, gs://, file:// or a path") from error
    if protocol == "s3":
        filesystem.retries = 1
    return filesystem


def get_object(filesystem: Any, path: str) -> tuple[bytes, str | None]:
    """All bytes of an object, and the version that the answer itself names, if it names one."""
    if "s3" not in filesystem.protocol:
        return filesystem.cat_file(path), None

    bucket, _, key = path.partition("/")

    async def get() -> tuple[bytes, str | None]:
        answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), str(answer["ETag"]).strip('"')

    return sync(filesystem.loop, get)


def classify(error: Exception, action: str, uri: str) -> Exception:
    """The exception of ours that a library's exception means: `Transient`, or a `StorageError` with a remedy."""
    status = _http_status(error)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        if "bucket" in str(error).lower():
            return StorageError(
                f"cannot {action} {uri}: the bucket does not exist ({error}); create it or mend the URI"
            )
        return ObjectMissing(f"cannot {action} {uri}: there is no such object")
    if isinstance(error, PermissionError | NoCredentialsError | PartialCredentialsError) or status in (401, 403):
        return AccessDenied(f"cannot {action} {uri}: access denied ({error}); check credentials and bucket policy")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return StorageError(f"cannot {action} {uri}: {error.strerror}; free space or choose another output")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return StorageError(f"cannot {action} {uri}: refused with HTTP status {status} ({error})")
    return Transient(f"cannot {action} {uri}: {type(error).__name__}: {error}; check the endpoint and the network")


def already_there(error: Exception) -> bool:
    """Whether a create-if-absent request lost: S3 answers 412 (409 while another is under way)."""
    return isinstance(error, FileExistsError) or _http_status(error) in (409, 412)


def _http_status(error: BaseException | None) -> int | None:
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(status) if status is not None else None
        error = error.__cause__
    return None
