"""Objects in a bucket or files in a folder, through fsspec, with one retry policy and create-if-absent."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from pipeline.data.filesystems import Transient, already_there, classify, join, open_filesystem, require_bucket, split
from pipeline.data.single_put import create_object, is_local, replace_object
from pipeline.data.whole_reads import WholeReads
from pipeline.errors import ObjectMissing, StorageError, StorageUnavailable

__all__ = ["ObjectInfo", "RetryPolicy", "Storage", "join"]

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a transient failure is tried again; a 4xx answer never is.

    Attributes:
        attempts: requests in all, the first included.
        first_delay: seconds before the second attempt; doubled for each further one, with jitter.
        max_delay: longest pause, seconds.
    """

    attempts: int = 6
    first_delay: float = 0.5
    max_delay: float = 10.0


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing says of an object: size in bytes, and a version that changes with its content (ETag)."""

    uri: str
    size: int
    version: str | None


class Storage:
    """Reads and writes whole objects by URI (`s3://`, `gs://`, `file://`, plain paths); safe to share by threads.

    Connections are made on first use, so an object of this class can be sent to another process.
    """

    def __init__(self, retry: RetryPolicy | None = None) -> None:
        self.retry = retry or RetryPolicy()
        self._filesystems: dict[str, Any] = {}
        self._whole = WholeReads()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Storage], tuple[RetryPolicy]]:
        return Storage, (self.retry,)

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """The fsspec filesystem of a URI and the path within it, for libraries that want those."""
        protocol, path = split(uri)
        with self._lock:
            if protocol not in self._filesystems:
                self._filesystems[protocol] = open_filesystem(protocol)
            return self._filesystems[protocol], path

    def read(self, uri: str, *, size: int | None = None, version: str | None = None) -> bytes:
        """All bytes of an object.

        Args:
            uri: of the object.
            size: expected length in bytes. A body that is not whole is tried again, then an error.
            version: expected version.

        Raises:
            ObjectMissing: if there is no such object.
            ObjectChanged: if the object has another version than the one asked for.
            AccessDenied, StorageError: if storage does not do its work.
        """

        def attempt(filesystem: Any, path: str) -> bytes:
            return self._whole.read(filesystem, path, uri, lambda: self.info(uri), size, version)

        return self.call("read", uri, attempt)

    def write_once(self, uri: str, data: bytes) -> bool:
        """Creates an object from complete bytes with one request, unless it exists.

        Returns:
            True if the object now holds exactly `data`, whoever wrote it (so a lost reply is no failure);
            False if it was there with other bytes, and still is.

        Raises:
            AccessDenied, StorageError: if storage does not do its work; whether the object exists is unknown.
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
        try:
            return self.info(uri).size == len(data) and self.read(uri) == data
        except ObjectMissing as error:
            # S3 also refuses while somebody else creates it, who may yet fail.
            raise Transient(f"cannot create {uri}: it is being created or removed by another request") from error

    def write(self, uri: str, data: bytes) -> None:
        """Creates or replaces an object with one request; a reader sees the old or the new bytes whole."""
        self.call("write", uri, lambda filesystem, path: replace_object(filesystem, path, data))

    def exists(self, uri: str) -> bool:
        """Whether there is an object (not: a prefix) of this name."""
        try:
            self.info(uri)
        except ObjectMissing:
            return False
        return True

    def info(self, uri: str) -> ObjectInfo:
        """Size and version of an object.

        Raises:
            ObjectMissing: if there is none.
        """

        def attempt(filesystem: Any, path: str) -> ObjectInfo:
            found = filesystem.info(path)
            if found.get("type") != "file":
                raise FileNotFoundError(path)
            return _object_info(split(uri)[0], found)

        return self.call("look up", uri, attempt)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects below a prefix, at any depth, by name; a prefix that holds nothing gives an empty list.

        Raises:
            StorageError: if the bucket does not exist.
        """
        protocol = split(prefix)[0]

        def attempt(filesystem: Any, path: str) -> list[ObjectInfo]:
            found = _find(filesystem, path)
            return [_object_info(protocol, entry) for entry in found.values()]

        return sorted(self.call("list", prefix, attempt), key=lambda entry: entry.uri)

    def delete(self, uri: str) -> None:
        """Removes an object; one that is gone already is fine."""

        def attempt(filesystem: Any, path: str) -> None:
            filesystem.rm_file(path)

        try:
            self.call("delete", uri, attempt)
        except ObjectMissing:
            return

    def check_writable(self, prefix: str) -> None:
        """Writes a small object below `prefix` and removes it.

        Raises:
            AccessDenied, StorageError: if that is refused.
        """
        trial = join(prefix, f".write-trial-{uuid.uuid4().hex}")
        self.write(trial, b"trial")
        self.delete(trial)

    def call(self, action: str, uri: str, request: Callable[[Any, str], Result]) -> Result:
        """Runs `request(filesystem, path)` under the retry policy; `action` is the verb of its error messages."""
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
        filesystem, path = self.filesystem(uri)
        try:
            return request(filesystem, path)
        except (StorageError, Transient):
            raise
        except Exception as error:
            raise classify(error, action, uri) from error


def _find(filesystem: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = filesystem.find(path.rstrip("/"), detail=True) if path else {}
    if not found and not is_local(filesystem):
        require_bucket(filesystem, path)
    # Some servers list an emptied folder. Names with a dot are trials and half-written files, ours or others.
    return {
        name: entry for name, entry in found.items() if entry["type"] == "file" and not Path(name).name.startswith(".")
    }


def _object_info(protocol: str, entry: dict[str, Any]) -> ObjectInfo:
    name = str(entry["name"])
    uri = name if protocol == "file" else f"{protocol}://{name.lstrip('/')}"
    return ObjectInfo(uri, int(entry["size"] or 0), _version(entry))


def _version(entry: dict[str, Any]) -> str | None:
    tag = entry.get("ETag") or entry.get("etag")
    if tag:
        return str(tag).strip('"')
    changed = entry.get("mtime") or entry.get("created")
    return None if changed is None else f"{entry.get('size')}-{changed}"
