"""Listings and files of any length, a page at a time: memory does not grow with a bucket or a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

from pipeline.data.filesystems import Transient, get_object, join, normalise, require_bucket
from pipeline.data.single_put import is_local
from pipeline.data.storage import ObjectInfo, Storage
from pipeline.errors import ObjectChanged, StorageError

__all__ = ["level", "spooled", "walk"]

# Bytes of one request when a file is copied here.
_BLOCK = 8 * 2**20
# Names of one request: S3 gives no more.
_PAGE = 1000
# What the version of an object looks like that was uploaded in one piece: the MD5 of its bytes.
_DIGEST = re.compile("[0-9a-f]{32}")


def walk(storage: Storage, prefix: str) -> Iterator[ObjectInfo]:
    """All objects below a prefix, as `Storage.list` finds them, in storage's own order.

    On S3 no more than a page of 1,000 is in memory; elsewhere fsspec holds the whole listing.

    Raises:
        StorageError: if the bucket does not exist, or storage does not do its work.
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
        # The prefix may be an object itself, and a bucket that does not exist must not pass for an empty one.
        yield from storage.list(prefix)


def level(storage: Storage, prefix: str) -> Iterator[tuple[str, bool]]:
    """What lies directly below a prefix, as (URI, whether it is a folder), whose content is not looked at.

    Raises:
        StorageError: if the bucket does not exist, or storage does not do its work.
    """
    filesystem, path = storage.filesystem(prefix)
    if "s3" in filesystem.protocol:
        yield from _level_s3(storage, prefix, path)
        return
    for entry in storage.call("list", prefix, _names):
        yield join(normalise(prefix), str(entry["name"]).rstrip("/").rpartition("/")[2]), entry["type"] == "directory"


def _names(filesystem: Any, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = filesystem.ls(path.rstrip("/"), detail=True) if filesystem.exists(path) else []
    return found


def _walk_s3(storage: Storage, prefix: str, path: str) -> Iterator[ObjectInfo]:
    bucket, _, key = path.partition("/")
    for page in _pages(storage, prefix, bucket, _below(key)):
        for entry in page.get("Contents", ()):
            # Names with a dot are trials and half-written files, ours or others'.
            if not entry["Key"].endswith("/") and not PurePosixPath(entry["Key"]).name.startswith("."):
                yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), entry["ETag"].strip('"'))


def _level_s3(storage: Storage, prefix: str, path: str) -> Iterator[tuple[str, bool]]:
    bucket, _, key = path.partition("/")
    found = False
    for page in _pages(storage, prefix, bucket, _below(key), Delimiter="/"):
        found = found or bool(page.get("Contents") or page.get("CommonPrefixes"))
        yield from ((f"s3://{bucket}/{entry['Prefix'].rstrip('/')}", True) for entry in page.get("CommonPrefixes", ()))
        yield from ((f"s3://{bucket}/{entry['Key']}", False) for entry in page.get("Contents", ()))
    if not found:
        storage.call("list", prefix, require_bucket)


def _below(key: str) -> str:
    return f"{key.rstrip('/')}/" if key else ""


def _pages(storage: Storage, prefix: str, bucket: str, below: str, **options: Any) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"Bucket": bucket, "Prefix": below, "MaxKeys": _PAGE, **options}
    while True:
        page = storage.call("list", prefix, partial(_page, query))
        yield page
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _page(query: dict[str, Any], filesystem: Any, path: str) -> dict[str, Any]:
    page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **query)
    return page


@contextlib.contextmanager
def spooled(storage: Storage, uri: str) -> Iterator[IO[bytes]]:
    """An object's bytes in a temporary file without a name, at its start.

    Raises:
        ObjectMissing: if there is no such object.
        ObjectChanged: if it was replaced meanwhile.
        StorageError: if storage does not do its work, or other bytes arrive each time.
    """
    info = storage.info(uri)
    with tempfile.TemporaryFile(prefix="spooled-") as file:
        digest = _copy(storage, info, file)
        damaged = digest != info.version and _DIGEST.fullmatch(info.version or "")
        # Some servers' versions only look like digests: then the same bytes, twice, are the object's.
        if damaged and _copy(storage, info, file) not in (digest, info.version):
            raise StorageError(f"cannot read {uri}: it came damaged, twice; check the network")
        file.seek(0)
        yield file


def _copy(storage: Storage, info: ObjectInfo, file: IO[bytes]) -> str:
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
    data, _ = get_object(filesystem, path, start, end)
    if len(data) != end - start:
        # A connection cut short can still look like a whole answer.
        raise Transient(f"{path} gave {len(data)} of {end - start} bytes from {start} on")
    return data
