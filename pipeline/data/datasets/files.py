"""Files of a data set: listing below a prefix, lists that name files, and search by relative path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.filesystems import normalise
from pipeline.data.storage import ObjectInfo, Storage, join
from pipeline.errors import ConfigError, ObjectMissing

__all__ = ["DataFolder", "Files", "absolute", "look_up"]

# Object infos from a listing, by URI.
Files = dict[str, ObjectInfo]


class DataFolder:
    """Folder or prefix, and its content; names are looked up once.

    Attributes:
        storage: Storage that holds the folder.
        root: URI of the folder, without a slash at the end.
    """

    def __init__(self, storage: Storage, root: str) -> None:
        self.storage = storage
        self.root = normalise(root).rstrip("/")
        self._names: frozenset[str] | None = None
        self._below: dict[str, DataFolder] = {}
        self._known: dict[str, bool] = {}

    def uri(self, path: str) -> str:
        """Return the URI of a relative path."""
        return join(self.root, path)

    def below(self, path: str) -> DataFolder:
        """Return a sub-folder, which lists its names once; for an empty path, this folder itself."""
        if not path:
            return self
        return self._below.setdefault(path, DataFolder(self.storage, self.uri(path)))

    def names(self) -> frozenset[str]:
        """Return the names of the files and folders directly in this folder; none if it does not exist.

        Raises:
            StorageError: If its bucket does not exist.
        """
        if self._names is None:
            found = self.storage.call("list", self.root, _list_names)
            if not found:
                # Distinguish a missing bucket, which raises here, from a missing folder.
                self.storage.list(self.root)
            self._names = frozenset(found)
        return self._names

    def has(self, path: str) -> bool:
        """Return whether there is a file or a folder at a relative path; each path is looked up once."""
        first, _, rest = path.partition("/")
        if first not in self.names():
            return False
        if rest and path not in self._known:
            self._known[path] = self.storage.call("look up", self.uri(path), _exists)
        return self._known.get(path, True)

    def find(self, places: Iterable[str], holding: Iterable[str]) -> DataFolder | None:
        """Return the first of several places that holds all wanted files and folders, or None.

        Args:
            places: Relative paths of folders; the empty path is this folder.
            holding: Paths relative to a place, all of which must exist there.
        """
        wanted = tuple(holding)
        for place in places:
            if all(self.has(str(PurePosixPath(place, name))) for name in wanted):
                return self.below(place)
        return None

    def files(self, path: str) -> Files:
        """Return everything below a relative path, at any depth, by URI, from a single listing."""
        return {info.uri: info for info in self.storage.list(self.uri(path))}

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file that are not blank, without surrounding blanks.

        Raises:
            ConfigError: If the file does not exist, or is not text in UTF-8.
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
    """Return the names directly in a folder, or none if it does not exist."""
    try:
        found = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return [name for name in (str(entry).rstrip("/").rpartition("/")[2] for entry in found) if name]


def _exists(filesystem: Any, path: str) -> bool:
    return bool(filesystem.exists(path))


# Up to this number, files of one folder are looked up one by one; for more, the folder is listed.
_FEW = 8
_THREADS = 16


def absolute(folder: DataFolder, path: str) -> str:
    """Return the URI of a path in a folder's file: a URI, an absolute path, or one relative to the folder."""
    return normalise(path) if "://" in path or path.startswith("/") else folder.uri(path.removeprefix("./"))


def look_up(storage: Storage, uris: Iterable[str]) -> Files:
    """Return the object infos of files by URI; files that do not exist are left out."""
    by_folder: dict[str, list[str]] = {}
    for uri in uris:
        by_folder.setdefault(uri.rpartition("/")[0], []).append(uri)
    work: list[Callable[[], Files]] = []
    # The last listed folder; at first a text with which no URI starts.
    listed = "\0"
    # Sorted order puts a folder before its sub-folders, which its listing includes.
    for folder, members in sorted((f"{name}/", members) for name, members in by_folder.items()):
        if folder.startswith(listed):
            continue
        if len(members) > _FEW:
            listed = folder
            work.append(partial(_all, storage, folder))
        else:
            work += [partial(_one, storage, uri) for uri in members]
    with ThreadPoolExecutor(_THREADS) as pool:
        return {uri: info for found in pool.map(lambda task: task(), work) for uri, info in found.items()}


def _all(storage: Storage, folder: str) -> Files:
    return {info.uri: info for info in storage.list(folder)}


def _one(storage: Storage, uri: str) -> Files:
    try:
        return {uri: storage.info(uri)}
    except ObjectMissing:
        return {}
