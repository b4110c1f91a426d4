"""Checks that the images of a run's `predictions` and `changes` are those of its manifest, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa

from pipeline.data.frozen_table import temporary_database
from pipeline.data.manifest_table import CHANGE_KINDS

__all__ = ["ManifestCheck", "changes_problems"]

_TABLES = "CREATE TABLE image (uri TEXT PRIMARY KEY, position INTEGER, label TEXT, times INTEGER) WITHOUT ROWID"
_LIST = "INSERT OR IGNORE INTO image VALUES (?, ?, ?, 0)"
_FIND = "SELECT position, label FROM image WHERE uri = ?"
# An image that the manifest lacks has no position.
_COUNT = "INSERT INTO image VALUES (?, NULL, NULL, 1) ON CONFLICT (uri) DO UPDATE SET times = times + 1"


class ManifestCheck:
    """Counter of the rows of `predictions` by image of the manifest; the counts are in a temporary file.

    Args:
        manifest: Tables with the columns `image_uri` and `label_uri`, in order.
        problem: Callback that receives one sentence per problem.

    Attributes:
        inputs: Number of rows of the manifest.
        rows: Number of rows of `predictions` counted so far.
    """

    def __init__(self, manifest: Iterable[pa.Table], problem: Callable[[str], None]) -> None:
        self._problem = problem
        self._database = temporary_database(_TABLES)
        self._in_order = True
        self.inputs = self.rows = 0
        # One transaction, which is never committed: nobody else reads the file.
        self._database.execute("BEGIN")
        self._database.executemany(_LIST, self._listed(manifest))

    def count(self, uri: str) -> str | None:
        """Count the next row of `predictions`.

        Args:
            uri: URI of its image.

        Returns:
            URI of the image's label; None if the manifest has no label or no such image.
        """
        position, label = self._database.execute(_FIND, (uri,)).fetchone() or (None, None)
        self._database.execute(_COUNT, (uri,))
        self._in_order = self._in_order and position == self.rows
        self.rows += 1
        return label

    def finish(self) -> None:
        """Report images that are missing from `predictions`, repeated, unknown or out of order."""
        found = False
        wrong = "SELECT uri, times FROM image WHERE position IS NOT NULL AND times != 1 ORDER BY uri"
        for uri, times in self._database.execute(wrong):
            found = True
            self._problem(f"{uri} appears {times} times in predictions instead of once")
        for (uri,) in self._database.execute("SELECT uri FROM image WHERE position IS NULL ORDER BY uri"):
            found = True
            self._problem(f"{uri} is in predictions but not in the manifest")
        # A different order is a problem of its own only if the images are the same.
        if not (self._in_order or found):
            self._problem("predictions is not in the order of the manifest")

    def _listed(self, manifest: Iterable[pa.Table]) -> Iterator[tuple[str, int, str | None]]:
        """Yield URI, position and label of each input, and report those that are not sorted by URI."""
        before = ""
        for table in manifest:
            rows = zip(table["image_uri"].to_pylist(), table["label_uri"].to_pylist(), strict=True)
            for uri, label in rows:
                # Readers search the manifest by bisection, so its URIs must ascend strictly.
                if self.inputs and uri <= before:
                    self._problem(
                        f"{uri} follows {before} in the manifest, which must be sorted and name each image once"
                    )
                before = uri
                yield uri, self.inputs, label
                self.inputs += 1


def changes_problems(
    since: Mapping[str, int] | None, changes: Iterable[pa.Table], manifest: Iterable[pa.Table]
) -> Iterator[str]:
    """Yield the problems of a run's `changes` table.

    Args:
        since: Entry `since` of `_SUCCESS.json`; None if the run was not made with `--since`, which is no problem.
        changes: Tables with the columns `image_uri` and `change`, in order.
        manifest: Tables with the column `image_uri`, in order.

    Yields:
        One sentence per problem.
    """
    if since is None:
        return
    counts = Counter[str]()
    inputs = (uri for table in manifest for uri in table["image_uri"].to_pylist())
    same = True
    for table in changes:
        for uri, change in zip(table["image_uri"].to_pylist(), table["change"].to_pylist(), strict=True):
            counts[change] += 1
            # Images that are gone appear in `changes`, but the run does not segment them.
            if change != "gone":
                same = same and uri == next(inputs, None)
    for kind in CHANGE_KINDS:
        stated = since.get(kind, 0)
        if kind != "unchanged" and stated != counts[kind]:
            yield f"_SUCCESS.json says that {stated} images are {kind}, the table changes has {counts[kind]}"
    if not same or next(inputs, None) is not None:
        yield "the images in the table changes that are not gone are not the images of the run"
