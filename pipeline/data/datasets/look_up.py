"""Size and version of files that a list names, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.data.datasets.folder import DataFolder, Files
from pipeline.data.filesystems import normalise
from pipeline.data.storage import Storage
from pipeline.errors import ObjectMissing

__all__ = ["absolute", "look_up"]

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
