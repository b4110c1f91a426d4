"""Destination of an export: small files are written directly, files of any length through the local disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError
from pipeline.results.tables import Run

__all__ = ["Target"]


class Target:
    """Folder for the files of one export; older files of the same names are replaced.

    Args:
        run: Run that is exported.
        folder: URI of the folder.

    Attributes:
        folder: URI of the folder, without a slash at the end.

    Raises:
        ConfigError: If the folder lies among the run's own tables.
    """

    def __init__(self, run: Run, folder: str) -> None:
        self._storage: Storage = run.storage
        self.folder = folder.rstrip("/")
        own = {"", *(entry["path"].split("/")[0] for entry in run.success["files"] if "/" in entry["path"])}
        for name in own:
            place = join(run.output, name).rstrip("/")
            if self.folder == place or (name and self.folder.startswith(f"{place}/")):
                raise ConfigError(f"{folder} holds the run's own tables: export to another folder")

    def write(self, name: str, data: bytes) -> str:
        """Write a file below the folder and return its URI."""
        uri = join(self.folder, name)
        self._storage.write(uri, data)
        return uri

    @contextlib.contextmanager
    def long_file(self, name: str) -> Iterator[IO[str]]:
        """Open a text file to write piece by piece; the whole file appears in the folder if the block ends normally."""
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            path = Path(scratch) / "file"
            with path.open("w", encoding="utf-8") as file:
                yield file
            self._storage.write_file(join(self.folder, name), path)
