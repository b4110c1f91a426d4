"""Writing of whole objects with one request, so that no reader sees a partial object."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["create_object", "is_local", "replace_object"]

# Largest object that one PUT of S3 accepts, in bytes.
_SINGLE_PUT = 5 * 2**30


def create_object(filesystem: Any, path: str, data: bytes) -> None:
    """Create an object unless it exists.

    Raises:
        Exception: If the object exists; the type is that of the library.
    """
    if is_local(filesystem):
        _local_write(Path(path), data, os.link)
    elif "s3" in filesystem.protocol:
        # A chunk size of the PUT limit prevents a multipart upload, which would publish in two steps.
        filesystem.pipe_file(path, data, mode="create", chunksize=_SINGLE_PUT)
    else:
        filesystem.pipe_file(path, data, mode="create")


def replace_object(filesystem: Any, path: str, data: bytes) -> None:
    """Create or replace an object."""
    if is_local(filesystem):
        _local_write(Path(path), data, os.replace)
    elif "s3" in filesystem.protocol:
        filesystem.pipe_file(path, data, chunksize=_SINGLE_PUT)
    else:
        filesystem.pipe_file(path, data)


def _local_write(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    """Write bytes to disk, then make them visible under `path` in one step.

    Args:
        path: Path of the file; missing folders are created.
        data: Content of the file.
        publish: Function that gives the temporary file its name: `os.link` fails if the name exists, `os.replace`
            replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name with a dot is left out of listings. The same folder is on the same filesystem, which both functions need.
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # A crash must not leave the name without its content.
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_local(filesystem: Any) -> bool:
    """Return whether a filesystem is that of this machine."""
    return "file" in filesystem.protocol
