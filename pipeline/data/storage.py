"""Objects in a bucket or files in a folder, through fsspec, with one retry policy and create-if-absent."""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from pipeline.data.atomic_write import create_object, is_local, replace_from_file, replace_object
from pipeline.data.filesystems import (
    Transient,
    already_there,
    classify,
    find_local,
    get_object,
    join,
    open_filesystem,
    require_bucket,
    split,
)
from pipeline.errors import ObjectChanged, ObjectMissing, StorageError, StorageOutOfMemory, StorageUnavailable

__all__ = ["ObjectInfo", "RetryPolicy", "Storage", "VerifiedReader", "join"]


class ObjectHeader(Protocol):
    """Size and version of an object, as storage states them."""

    @property
    def size(self) -> int: ...

    @property
    def version(self) -> str | None: ...


class VerifiedReader:
    """Reader that checks the bytes of objects against size and version; safe to share between threads.

    An ETag is the MD5 of the bytes, with two exceptions. The ETag of an object that was uploaded in parts contains a
    dash. A bucket that encrypts with keys has other ETags: there, two answers with the same bytes and the same ETag
    count as correct.
    """

    def __init__(self) -> None:
        self._without_digests: set[str] = set()

    def read(
        self,
        filesystem: Any,
        path: str,
        uri: str,
        look: Callable[[], ObjectHeader],
        size: int | None,
        version: str | None,
    ) -> bytes:
        """Attempt to read an object, and check its bytes.

        Args:
            filesystem: Filesystem of fsspec.
            path: Path of the object in the filesystem.
            uri: URI of the object, for messages.
            look: Function that requests size and version from storage.
            size: Expected size in bytes; None if unknown.
            version: Expected version; None accepts any.

        Raises:
            ObjectChanged: If the object has another version than the expected one.
            Transient: If the received bytes are not those of the object.
        """
        data, now = get_object(filesystem, path)
        # The ETag is the MD5 of the bytes, so they are complete: no further request is needed.
        if now is not None and now == hashlib.md5(data, usedforsecurity=False).hexdigest():
            if version not in (None, now):
                raise _replaced(uri, now, version)
            return data
        # Neither the answer nor the caller has a version: only the length can be checked.
        if now is None and version is None and size in (None, len(data)):
            return data
        # All other cases need the size and version that storage states in a separate request.
        stated = look()
        bucket = path.partition("/")[0]
        if version is not None and stated.version != version:
            raise _replaced(uri, stated.version, version)
        if len(data) != stated.size or now not in (None, stated.version):
            # A connection that was cut can still look like a complete answer.
            raise Transient(f"{uri} has {stated.size} bytes, {len(data)} arrived")
        if now is not None and "-" not in now and bucket not in self._without_digests:
            # The ETag should be the MD5 but is not. Two equal answers show that the bucket has other ETags, which is
            # remembered.
            if get_object(filesystem, path) != (data, now):
                raise Transient(f"{uri} came damaged: its bytes are not those of its ETag {now}")
            self._without_digests.add(bucket)
        return data


def _replaced(uri: str, now: str | None, wanted: str | None) -> ObjectChanged:
    """Return the error for an object that was replaced after it was listed."""
    return ObjectChanged(f"{uri} is now version {now}, not {wanted}: it was replaced after listing")


logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """Number and pauses of the attempts after transient failures.

    Answers 4xx are not retried, except timeouts, throttling and a few codes of temporary failures.

    Attributes:
        attempts: Total number of requests, including the first.
        first_delay: Pause before the second attempt, in seconds; it doubles for each further one, with jitter.
        max_delay: Longest pause, in seconds.
    """

    attempts: int = 6
    first_delay: float = 0.5
    max_delay: float = 10.0


@dataclass(frozen=True)
class ObjectInfo:
    """Size and version of an object, from a listing.

    Attributes:
        uri: URI of the object, in the form that `normalise` gives.
        size: Size in bytes.
        version: Version that changes with the content: the ETag, else size and time of the last change; None if storage
            states neither.
    """

    uri: str
    size: int
    version: str | None


class Storage:
    """Access to whole objects by URI (`s3://`, `gs://`, `file://`, plain paths); safe to share between threads.

    Connections are made on first use, so a `Storage` can be sent to another process.

    Args:
        retry: Retry policy; None for the default.
    """

    def __init__(self, retry: RetryPolicy | None = None) -> None:
        self.retry = retry or RetryPolicy()
        self._filesystems: dict[str, Any] = {}
        self._whole = VerifiedReader()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Storage], tuple[RetryPolicy]]:
        """Pickle the retry policy only: the other process opens its own connections."""
        return Storage, (self.retry,)

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """Return the fsspec filesystem of a URI and the path within it, for libraries that need them."""
        protocol, path = split(uri)
        with self._lock:
            if protocol not in self._filesystems:
                self._filesystems[protocol] = open_filesystem(protocol)
            return self._filesystems[protocol], path

    def read(self, uri: str, *, size: int | None = None, version: str | None = None) -> bytes:
        """Return all bytes of an object.

        Args:
            uri: URI of the object.
            size: Expected length in bytes; None if unknown. An incomplete body is requested again, then raises an
                error.
            version: Expected version; None accepts any.

        Raises:
            ObjectMissing: If there is no such object.
            ObjectChanged: If the object has another version than the expected one.
            AccessDenied, StorageError: If storage fails.
        """

        def attempt(filesystem: Any, path: str) -> bytes:
            return self._whole.read(filesystem, path, uri, lambda: self.info(uri), size, version)

        return self.call("read", uri, attempt)

    def write_once(self, uri: str, data: bytes) -> bool:
        """Create an object from complete bytes with one request, unless it exists.

        Returns:
            True if the object now holds exactly `data`, whether this call or another one wrote it, so that a lost reply
            is not a failure. False if the object existed with other bytes, which are kept.

        Raises:
            AccessDenied, StorageError: If storage fails; it is then unknown whether the object exists.
        """

        def attempt(filesystem: Any, path: str) -> bool:
            try:
                create_object(filesystem, path, data)
            except Exception as error:
                if not already_there(error):
                    raise
                return self._holds(uri, data)
            return True

        return self.call("create", uri, attempt)

    def _holds(self, uri: str, data: bytes) -> bool:
        """Return whether an object holds exactly `data`."""
        try:
            return self.info(uri).size == len(data) and self.read(uri) == data
        except ObjectMissing as error:
            # S3 also refuses while another request creates the object, and that request may still fail.
            raise Transient(f"cannot create {uri}: it is being created or removed by another request") from error

    def write(self, uri: str, data: bytes) -> None:
        """Create or replace an object with one request; readers see either the old or the new bytes, always whole."""
        self.call("write", uri, lambda filesystem, path: replace_object(filesystem, path, data))

    def write_file(self, uri: str, source: Path) -> None:
        """Create or replace an object with the content of a local file, which is never in memory as a whole."""
        self.call("write", uri, lambda filesystem, path: replace_from_file(filesystem, path, source))

    def exists(self, uri: str) -> bool:
        """Return whether there is an object (not a prefix) of this name."""
        try:
            self.info(uri)
        except ObjectMissing:
            return False
        return True

    def info(self, uri: str) -> ObjectInfo:
        """Return size and version of an object.

        Raises:
            ObjectMissing: If there is no such object.
        """

        def attempt(filesystem: Any, path: str) -> ObjectInfo:
            found = filesystem.info(path)
            if found.get("type") != "file":
                raise FileNotFoundError(path)
            return _object_info(split(uri)[0], found)

        return self.call("look up", uri, attempt)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return all objects below a prefix, at any depth, sorted by URI.

        A prefix without objects gives an empty list. Names that start with a dot are left out. On this machine's files,
        links are followed, except in circles.

        Raises:
            StorageError: If the bucket does not exist.
        """
        protocol = split(prefix)[0]

        def attempt(filesystem: Any, path: str) -> list[ObjectInfo]:
            found = _find(filesystem, path)
            return [_object_info(protocol, entry) for entry in found.values()]

        return sorted(self.call("list", prefix, attempt), key=lambda entry: entry.uri)

    def delete(self, uri: str) -> None:
        """Delete an object; a missing object is not an error."""

        def attempt(filesystem: Any, path: str) -> None:
            filesystem.rm_file(path)

        try:
            self.call("delete", uri, attempt)
        except ObjectMissing:
            return

    def check_writable(self, prefix: str) -> None:
        """Write a small object below `prefix` and delete it.

        Raises:
            AccessDenied, StorageError: If storage refuses one of the two.
        """
        trial = join(prefix, f".write-trial-{uuid.uuid4().hex}")
        self.write(trial, b"trial")
        self.delete(trial)

    def call(self, action: str, uri: str, request: Callable[[Any, str], Result]) -> Result:
        """Run `request(filesystem, path)` under the retry policy.

        Args:
            action: Verb for error messages, such as `read`.
            uri: URI of the object or prefix.
            request: Function of the fsspec filesystem and of the path within it.

        Returns:
            The result of the request.

        Raises:
            StorageUnavailable: If every attempt failed with a transient error.
            StorageError: If an attempt failed with another error.
        """
        retrying = Retrying(
            stop=stop_after_attempt(self.retry.attempts),
            wait=wait_exponential_jitter(self.retry.first_delay, self.retry.max_delay, jitter=self.retry.first_delay),
            retry=retry_if_exception_type(Transient),
            before_sleep=before_sleep_log(logger, logging.WARNING),
            reraise=True,
        )
        try:
            return retrying(self._once, action, uri, request)
        except Transient as error:
            raise StorageUnavailable(f"{error} ({self.retry.attempts} attempts)") from error

    def _once(self, action: str, uri: str, request: Callable[[Any, str], Result]) -> Result:
        """Run a request once, and translate the exceptions of libraries."""
        filesystem, path = self.filesystem(uri)
        try:
            return request(filesystem, path)
        except (StorageError, Transient):
            raise
        except MemoryError as error:
            # Storage is not to blame, and another attempt would need as much memory.
            raise StorageOutOfMemory(f"cannot {action} {uri}: out of memory") from error
        except Exception as error:
            raise classify(error, action, uri) from error


def _find(filesystem: Any, path: str) -> dict[str, Any]:
    """Return the entries of all files below a path, by name; raise if its bucket does not exist."""
    if is_local(filesystem):
        found = find_local(path)
    else:
        found = filesystem.find(path.rstrip("/"), detail=True) if path else {}
        if not found:
            require_bucket(filesystem, path)
    # Some servers list an emptied folder. Names that start with a dot are trial objects and half-written files, of this
    # project or of others.
    return {
        name: entry for name, entry in found.items() if entry["type"] == "file" and not Path(name).name.startswith(".")
    }


def _object_info(protocol: str, entry: dict[str, Any]) -> ObjectInfo:
    """Return the object info of an entry that fsspec lists."""
    name = str(entry["name"])
    uri = name if protocol == "file" else f"{protocol}://{name.lstrip('/')}"
    return ObjectInfo(uri, int(entry["size"] or 0), _version(entry))


def _version(entry: dict[str, Any]) -> str | None:
    """Return the ETag, else size and time of the last change, else None."""
    tag = entry.get("ETag") or entry.get("etag")
    if tag:
        return str(tag).strip('"')
    changed = entry.get("mtime") or entry.get("created")
    return None if changed is None else f"{entry.get('size')}-{changed}"
