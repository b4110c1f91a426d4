"""Whole objects with one request: nobody ever sees half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["create_object", "is_local", "replace_object"]

# S3's limit of one PUT, bytes.
_SINGLE_PUT = 5 * 2**30


def create_object(filesystem: Any, path: str, data: bytes) -> None:
    """Creates an object unless there is one; then the library's own exception says so."""
    if is_local(filesystem):
        _local_write(Path(path), data, os.link)
    elif "s3" in filesystem.protocol:
        # A chunk size above the limit of one PUT: a multipart upload would publish in two steps.
        filesystem.pipe_file(path, data, mode="create", chunksize=_SINGLE_PUT)
    else:
        filesystem.pipe_file(path, data, mode="create")


def replace_object(filesystem: Any, path: str, data: bytes) -> None:
    """Creates or replaces an object."""
    if is_local(filesystem):
        _local_write(Path(path), data, os.replace)
    elif "s3" in filesystem.protocol:
        filesystem.pipe_file(path, data, chunksize=_SINGLE_PUT)
    else:
        filesystem.pipe_file(path, data)


def _local_write(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    """Bytes become visible under `path` in one step, when they are all on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_local(filesystem: Any) -> bool:
    """Whether a filesystem is this machine's own."""
    return "file" in filesystem.protocol
