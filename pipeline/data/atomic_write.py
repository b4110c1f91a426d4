"""Writing of whole objects with one request, so that no reader sees a partial object."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["create_object", "is_local", "replace_from_file", "replace_object"]

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


def replace_from_file(filesystem: Any, path: str, source: Path) -> None:
    """Create or replace an object with the content of a local file, which is never in memory as a whole.

    Args:
        filesystem: Filesystem of fsspec.
        path: Path of the object in the filesystem; missing local folders are created.
        source: Local file to copy.
    """
    if not is_local(filesystem):
        filesystem.put_file(str(source), path)
        return
    # The target may be on another disk than the source, and a rename works on one disk only. The file is therefore
    # copied beside the target, then renamed in one step.
    beside = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.tmp")
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        filesystem.put_file(str(source), str(beside))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


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
