"""From a URI to its fsspec filesystem, and from a library's exceptions to ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import NoCredentialsError, PartialCredentialsError

from pipeline.errors import AccessDenied, ConfigError, ObjectMissing, StorageError

__all__ = [
    "Transient",
    "already_there",
    "classify",
    "get_object",
    "join",
    "normalise",
    "open_filesystem",
    "require_bucket",
    "split",
]

# Seconds. A peer that says nothing for this long is treated as gone, and the request is tried again.
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60
# Codes with which S3 refuses a request that went wrong on its way, whatever the status says.
_PASSING = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"}
# Codes of expired sessions, which have the status 400.
_DENIED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}

_NO_ACCESS = (PermissionError, NoCredentialsError, PartialCredentialsError)


class Transient(Exception):
    """A failure that may pass: worth another attempt."""


class BucketMissing(FileNotFoundError):
    """Not the object is missing, but all that could hold it."""


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
        # s3fs takes longer to import than all else here, and files do without it.
        from pipeline.data.s3 import open_s3

        return open_s3(CONNECT_TIMEOUT, READ_TIMEOUT, **options)
    try:
        return fsspec.filesystem(protocol, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"no storage for `{protocol}://` ({error}): use s3://, gs://, file:// or a path") from error


def get_object(
    filesystem: Any, path: str, start: int | None = None, end: int | None = None
) -> tuple[bytes, str | None]:
    """Bytes from `start` to `end`, or all, and the version that the answer itself names, if it names one."""
    if "s3" in filesystem.protocol:
        found: tuple[bytes, str | None] = filesystem.get_bytes(path, start, end)
        return found
    # By name: the second argument of other filesystems is not the start.
    return filesystem.cat_file(path, start=start, end=end), None


def require_bucket(filesystem: Any, path: str) -> None:
    """Tells a bucket that holds nothing from one that does not exist: then it raises `BucketMissing`."""
    bucket = path.split("/")[0]
    try:
        # Not `exists`: for s3fs every failure there means no.
        filesystem.info(bucket)
    except FileNotFoundError as error:
        raise BucketMissing(bucket) from error


def classify(error: Exception, action: str, uri: str) -> Exception:
    """The exception of ours that a library's exception means: `Transient`, or a `StorageError` with a remedy."""
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
    if status is not None and 400 <= status < 500 and status not in (408, 429) and code not in _PASSING:
        return StorageError(f"{what}: refused with HTTP status {status} ({error}); {_who_may(uri)}")
    reason = str(error) or "no end within the time that a request may take"
    return Transient(f"{what}: {type(error).__name__}: {reason}; check the endpoint and the network")


def _who_may(uri: str) -> str:
    return "check the permissions of the file" if split(uri)[0] == "file" else "check credentials and bucket policy"


def already_there(error: Exception) -> bool:
    """Whether a create-if-absent request lost: S3 answers 412 (409 while another is under way)."""
    return isinstance(error, FileExistsError) or _answer(error)[0] in (409, 412)


def _answer(error: BaseException | None) -> tuple[int | None, str]:
    """HTTP status and code of the answer that an exception stands for, as far as there are any."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return None if status is None else int(status), str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return None, ""
