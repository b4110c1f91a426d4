"""The folder of a data set: looked at piece by piece, with one listing for all files of a sub-folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.filesystems import normalise
from pipeline.data.storage import ObjectInfo, Storage, join
from pipeline.errors import ConfigError, ObjectMissing

__all__ = ["DataFolder", "Files"]

# What a listing says of files, by URI.
Files = dict[str, ObjectInfo]


class DataFolder:
    """A folder or prefix, and what lies in it.

    Attributes:
        storage: where everything is read.
        root: its URI, without a slash at the end.
    """

    def __init__(self, storage: Storage, root: str) -> None:
        self.storage, self.root = storage, normalise(root).rstrip("/")
        self._names: frozenset[str] | None = None
        self._below: dict[str, DataFolder] = {}
        self._known: dict[str, bool] = {}

    def uri(self, path: str) -> str:
        """The URI of what lies at a relative path."""
        return join(self.root, path)

    def below(self, path: str) -> DataFolder:
        """Return a folder in this one, which lists its names once; itself for an empty path."""
        if not path:
            return self
        return self._below.setdefault(path, DataFolder(self.storage, self.uri(path)))

    def names(self) -> frozenset[str]:
        """Names of the files and folders directly in it; none if it does not exist.

        Raises:
            StorageError: if its bucket does not exist.
        """
        if self._names is None:
            found = self.storage.call("list", self.root, _list_names)
            if not found:
                # Tells a bucket that does not exist from a folder that does not.
                self.storage.list(self.root)
            self._names = frozenset(found)
        return self._names

    def has(self, path: str) -> bool:
        """Tell whether there is a file or a folder at a relative path; each is looked up once."""
        first, _, rest = path.partition("/")
        if first not in self.names():
            return False
        if rest and path not in self._known:
            self._known[path] = self.storage.call("look up", self.uri(path), _exists)
        return self._known.get(path, True)

    def find(self, places: Iterable[str], holding: Iterable[str]) -> DataFolder | None:
        """The first of `places` (relative paths; the empty one is here) that holds all of these; None if none does."""
        wanted = tuple(holding)
        for place in places:
            if all(self.has(str(PurePosixPath(place, name))) for name in wanted):
                return self.below(place)
        return None

    def files(self, path: str) -> Files:
        """Everything below a relative path, at any depth, by URI: one listing, whatever it holds."""
        return {info.uri: info for info in self.storage.list(self.uri(path))}

    def lines(self, path: str) -> list[str]:
        """The lines of a text file that are not blank, without their ends.

        Raises:
            ConfigError: if it does not exist, or is no text.
        """
        uri = self.uri(path)
        try:
            lines = self.storage.read(uri).decode("utf-8-sig").splitlines()
        except ObjectMissing as error:
            raise ConfigError(f"there is no {uri}: it says which images the split has") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{uri} is no text in UTF-8: {error}") from error
        return [line.strip() for line in lines if line.strip()]


def _list_names(filesystem: Any, path: str) -> list[str]:
    try:
        found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return [name for name in (str(entry).rstrip("/").rpartition("/")[2] for entry in found) if name]


def _exists(filesystem: Any, path: str) -> bool:
    return bool(filesystem.exists(path))
