"""Files that a job would write, for its dry run, and a check of their folder that writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.atomic_write import is_local
from pipeline.data.filesystems import require_bucket
from pipeline.data.storage import Storage
from pipeline.errors import StorageError

__all__ = ["PlannedFiles", "check_target"]


@dataclass(frozen=True)
class PlannedFiles:
    """Files that a job would write into a folder.

    Attributes:
        folder: URI of the folder.
        files: Content of the files in words (rows, images), by path below the folder; `*` stands for many names.
    """

    folder: str
    files: Mapping[str, str]

    def text(self) -> str:
        """Return the files as text for a terminal, one per line."""
        width = max(map(len, self.files), default=0)
        lines = [f"  {name:<{width}}  {content}".rstrip() for name, content in self.files.items()]
        return "\n".join([f"would write into {self.folder}:", *lines, "nothing was started or written"])


def check_target(storage: Storage, folder: str) -> None:
    """Check, as far as that is possible without a write, that files can be written below a folder.

    A local folder must be writable, or its nearest existing parent. Elsewhere, the bucket must exist; permissions are
    only known when an object is written.

    Args:
        storage: Storage of the folder.
        folder: URI of the folder, which need not exist.

    Raises:
        StorageError: If nothing can be written there.
    """

    def check(filesystem: Any, path: str) -> None:
        if not is_local(filesystem):
            require_bucket(filesystem, path)
            return
        place = Path(path)
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise StorageError(f"cannot write into {folder}: {place} is a file; choose another folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f"{place} is not writable")

    storage.call("write into", folder, check)
