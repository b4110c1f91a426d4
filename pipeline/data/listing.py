"""Paged listings and copies of files, whose memory does not grow with a bucket or a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline.data.atomic_write import is_local
from pipeline.data.filesystems import Transient, get_object, join, normalise, require_bucket
from pipeline.data.storage import ObjectInfo, Storage
from pipeline.errors import ObjectChanged, StorageError

__all__ = ["level", "spooled", "walk"]

# Bytes per request when a file is copied to this machine.
_BLOCK = 8 * 2**20
# Names per request, which is S3's maximum.
_PAGE = 1000
# Form of the version (ETag) of an object that was uploaded in one piece: the MD5 of its bytes.
_DIGEST = re.compile("[0-9a-f]{32}")


def walk(storage: Storage, prefix: str) -> Iterator[ObjectInfo]:
    """Yield all objects below a prefix, as `Storage.list` finds them, in the storage's own order.

    On S3, at most one page of 1,000 objects is in memory; elsewhere fsspec holds the whole listing.

    Raises:
        StorageError: If the bucket does not exist, or storage fails.
    """
    filesystem, path = storage.filesystem(prefix)
    if is_local(filesystem) or "s3" not in filesystem.protocol:
        yield from storage.list(prefix)
        return
    found = False
    for info in _walk_s3(storage, prefix, path):
        found = True
        yield info
    if not found:
        # The prefix may be an object itself, and a missing bucket must not look like an empty one.
        yield from storage.list(prefix)


def level(storage: Storage, prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield the URI of each entry directly below a prefix, and whether it is a folder.

    The content of these folders is not read.

    Raises:
        StorageError: If the bucket does not exist, or storage fails.
    """
    filesystem, path = storage.filesystem(prefix)
    if "s3" in filesystem.protocol:
        yield from _level_s3(storage, prefix, path)
        return
    for entry in storage.call("list", prefix, _names):
        # fsspec calls a link to a folder neither a file nor a directory.
        folder = entry["type"] == "directory" or (entry.get("islink", False) and Path(entry["name"]).is_dir())
        yield join(normalise(prefix), str(entry["name"]).rstrip("/").rpartition("/")[2]), folder


def _names(filesystem: Any, path: str) -> list[dict[str, Any]]:
    """Return the entries of a folder, or none if it does not exist."""
    found: list[dict[str, Any]] = filesystem.ls(path.rstrip("/"), detail=True) if filesystem.exists(path) else []
    return found


def _walk_s3(storage: Storage, prefix: str, path: str) -> Iterator[ObjectInfo]:
    """Yield the objects below a path of S3, one page after the other."""
    bucket, _, key = path.partition("/")
    for page in _pages(storage, prefix, bucket, _below(key)):
        for entry in page.get("Contents", ()):
            # Names that start with a dot are trial objects and half-written files, of this project or of others.
            if not entry["Key"].endswith("/") and not PurePosixPath(entry["Key"]).name.startswith("."):
                yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), entry["ETag"].strip('"'))


def _level_s3(storage: Storage, prefix: str, path: str) -> Iterator[tuple[str, bool]]:
    """Yield folders and objects directly below a path of S3, one page after the other."""
    bucket, _, key = path.partition("/")
    found = False
    for page in _pages(storage, prefix, bucket, _below(key), Delimiter="/"):
        found = found or bool(page.get("Contents") or page.get("CommonPrefixes"))
        yield from ((f"s3://{bucket}/{entry['Prefix'].rstrip('/')}", True) for entry in page.get("CommonPrefixes", ()))
        yield from ((f"s3://{bucket}/{entry['Key']}", False) for entry in page.get("Contents", ()))
    if not found:
        storage.call("list", prefix, require_bucket)


def _below(key: str) -> str:
    """Return the prefix of the keys in a folder; empty for the whole bucket."""
    return f"{key.rstrip('/')}/" if key else ""


def _pages(storage: Storage, prefix: str, bucket: str, below: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield the pages of a listing; the retry policy applies to each page."""
    query: dict[str, Any] = {"Bucket": bucket, "Prefix": below, "MaxKeys": _PAGE, **options}
    while True:
        page = storage.call("list", prefix, partial(_page, query))
        yield page
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _page(query: dict[str, Any], filesystem: Any, path: str) -> dict[str, Any]:
    """Request one page of a listing."""
    page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **query)
    return page


@contextlib.contextmanager
def spooled(storage: Storage, uri: str) -> Iterator[IO[bytes]]:
    """Copy an object into an unnamed temporary file, and open it at its start.

    Raises:
        ObjectMissing: If there is no such object.
        ObjectChanged: If the object was replaced during the copy.
        StorageError: If storage fails, or other bytes arrive each time.
    """
    info = storage.info(uri)
    with tempfile.TemporaryFile(prefix="spooled-") as file:
        digest = _copy(storage, info, file)
        damaged = digest != info.version and _DIGEST.fullmatch(info.version or "")
        # The versions of some servers only look like digests. In that case, two copies with the same bytes are correct.
        if damaged and _copy(storage, info, file) not in (digest, info.version):
            raise StorageError(f"cannot read {uri}: it came damaged, twice; check the network")
        file.seek(0)
        yield file


def _copy(storage: Storage, info: ObjectInfo, file: IO[bytes]) -> str:
    """Copy an object into a file, block by block, and return the MD5 of its bytes."""
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    for start in range(0, info.size, _BLOCK):
        block = storage.call("read", info.uri, partial(_block, start, min(start + _BLOCK, info.size)))
        digest.update(block)
        file.write(block)
    if storage.info(info.uri).version != info.version:
        raise ObjectChanged(f"{info.uri} was replaced while it was read: submit the same command again")
    return digest.hexdigest()


def _block(start: int, end: int, filesystem: Any, path: str) -> bytes:
    """Return the bytes of an object from `start` up to `end`, or raise `Transient` if some are missing."""
    data, _ = get_object(filesystem, path, start, end)
    if len(data) != end - start:
        # A connection that was cut can still look like a complete answer.
        raise Transient(f"{path} gave {len(data)} of {end - start} bytes from {start} on")
    return data
