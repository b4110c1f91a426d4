"""All bytes of an object, or an exception: never a part of it, and never other bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from pipeline.data.filesystems import Transient, get_object
from pipeline.errors import ObjectChanged

__all__ = ["WholeReads"]


class Stated(Protocol):
    """What storage says of an object."""

    @property
    def size(self) -> int: ...

    @property
    def version(self) -> str | None: ...


class WholeReads:
    """Reads objects and holds their bytes against what storage says of them; safe to share by threads.

    An ETag is the MD5 of the bytes, unless the object was uploaded in parts (then it has a dash) or its bucket encrypts
    by keys: then an object comes twice with the same bytes and an ETag that is not their MD5.
    """

    def __init__(self) -> None:
        self._without_digests: set[str] = set()

    def read(
        self, filesystem: Any, path: str, uri: str, look: Callable[[], Stated], size: int | None, version: str | None
    ) -> bytes:
        """One attempt.

        Args:
            filesystem: of fsspec.
            path: in it.
            uri: for messages.
            look: asks storage for size and version.
            size: expected one, in bytes.
            version: expected one.

        Raises:
            ObjectChanged: if the object has another version than the one expected.
            Transient: if what came is not the object.
        """
        data, now = get_object(filesystem, path)
        if now is not None and now == hashlib.md5(data, usedforsecurity=False).hexdigest():
            if version not in (None, now):
                raise _replaced(uri, now, version)
            return data
        if now is None and version is None and size in (None, len(data)):
            return data
        stated, bucket = look(), path.partition("/")[0]
        if version is not None and stated.version != version:
            raise _replaced(uri, stated.version, version)
        if len(data) != stated.size or now not in (None, stated.version):
            # A connection cut short can still look like a whole answer: never take it for the object.
            raise Transient(f"{uri} has {stated.size} bytes, {len(data)} arrived")
        if now is not None and "-" not in now and bucket not in self._without_digests:
            if get_object(filesystem, path) != (data, now):
                raise Transient(f"{uri} came damaged: its bytes are not those of its ETag {now}")
            self._without_digests.add(bucket)
        return data


def _replaced(uri: str, now: str | None, wanted: str | None) -> ObjectChanged:
    return ObjectChanged(f"{uri} is now version {now}, not {wanted}: it was replaced after listing")
