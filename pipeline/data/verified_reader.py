"""Verified reads: all bytes of an object or an exception, never a part and never other bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from pipeline.data.filesystems import Transient, get_object
from pipeline.errors import ObjectChanged

__all__ = ["VerifiedReader"]


class Stated(Protocol):
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
        self, filesystem: Any, path: str, uri: str, look: Callable[[], Stated], size: int | None, version: str | None
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
