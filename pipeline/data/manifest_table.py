"""Temporary table of a run's inputs: sorted, paired and checked for duplicates in bounded memory.

SQLite keeps the table in an unnamed temporary file, which disappears with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.data.storage import ObjectInfo
from pipeline.errors import ConfigError

__all__ = [
    "CHANGES_SCHEMA",
    "MANIFEST_SCHEMA",
    "Changes",
    "FrozenTable",
    "Input",
    "Known",
    "Manifest",
    "ManifestTable",
    "temporary_database",
]

_BATCH = 10_000


def temporary_database(tables: str) -> sqlite3.Connection:
    """Create a temporary SQLite database that holds only a few MiB in memory; statements commit at once.

    `SQLITE_TMPDIR` or `TMPDIR` sets the folder of its file.

    Args:
        tables: SQL statements that create the tables.
    """
    # An empty name: SQLite creates a temporary file, unlinks it at once, and uses it when its cache of a few MiB is
    # full.
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    # No process reads the file after a crash, so neither a journal nor syncing is needed.
    database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {tables}")
    return database


class FrozenTable:
    """Immutable rows of an SQLite table, addressed by position; safe to share between threads.

    Args:
        database: Connection to the database that holds the table.
        name: Name of the table, which has the columns of `schema` and `position`, the row's number from 0.
        schema: Schema of the rows.

    Attributes:
        num_rows: Number of rows.
    """

    def __init__(self, database: sqlite3.Connection, name: str, schema: pa.Schema) -> None:
        self._database = database
        self._name = name
        self._schema = schema
        self._lock = threading.Lock()
        self.num_rows: int = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]

    def slice(self, offset: int, length: int) -> pa.Table:
        """Return `length` rows from `offset` on, or fewer at the end of the table."""
        query = (
            f"SELECT {', '.join(self._schema.names)} FROM {self._name} "
            "WHERE position >= ? AND position < ? ORDER BY position"
        )
        # Threads share one connection, so queries are serialized.
        with self._lock:
            rows = self._database.execute(query, (offset, offset + length)).fetchall()
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        return pa.table([list(column) for column in columns], schema=self._schema)

    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows as tables of up to 10,000 rows."""
        for offset in range(0, self.num_rows, _BATCH):
            yield self.slice(offset, _BATCH)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows as dictionaries, one at a time."""
        for table in self.tables():
            yield from table.to_pylist()

    def digest(self) -> str:
        """Return the SHA-256 of the content as hexadecimal text.

        It depends only on the rows, not on the files that hold them.
        """
        content = hashlib.sha256()
        for row in self.rows():
            content.update(json.dumps(list(row.values()), ensure_ascii=False).encode() + b"\n")
        return content.hexdigest()


MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("label_uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
    ]
)
CHANGES_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("earlier_version", pa.string()),
    ]
)
_TABLES = """
    CREATE TABLE image (uri TEXT PRIMARY KEY, label TEXT, size INTEGER, version TEXT, stem TEXT, times INTEGER)
        WITHOUT ROWID;
    CREATE TABLE label (stem TEXT PRIMARY KEY, uri TEXT, other TEXT) WITHOUT ROWID;
    CREATE TABLE alias (stem TEXT, uri TEXT, own_stem TEXT, PRIMARY KEY (stem, uri)) WITHOUT ROWID;
    CREATE TABLE known (uri TEXT PRIMARY KEY, label TEXT, size INTEGER, version TEXT) WITHOUT ROWID;
    CREATE TABLE manifest (position INTEGER PRIMARY KEY, image_uri TEXT, label_uri TEXT, size INTEGER, version TEXT);
    CREATE TABLE change (
        position INTEGER PRIMARY KEY, image_uri TEXT, change TEXT, version TEXT, earlier_version TEXT
    );
"""
_ADD_IMAGE = """
    INSERT INTO image VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (uri) DO UPDATE SET times = times + 1
"""
_ADD_LABEL = "INSERT INTO label VALUES (?, ?, NULL) ON CONFLICT (stem) DO UPDATE SET other = excluded.uri"
_ADD_ALIAS = "INSERT OR REPLACE INTO alias VALUES (?, ?, ?)"
# A label whose own stem is that of an image belongs to that image only.
_DROP_USED_ALIASES = "DELETE FROM alias WHERE own_stem IN (SELECT stem FROM image)"
_ADD_KNOWN = "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?)"
_FORGET = "DELETE FROM known WHERE uri = ?"
# An object without a version may have changed. An image that was missing and still is has neither version nor size.
_UNCHANGED = """
    (known.version IS NOT NULL OR known.size IS NULL)
    AND known.uri IS NOT NULL
    AND (known.version, known.size, known.label)
        IS (image.version, image.size, coalesce(label.uri, alias.uri, image.label))
"""
_INPUTS = """image LEFT JOIN label USING (stem)
    LEFT JOIN (SELECT stem, min(uri) AS uri FROM alias GROUP BY stem) AS alias USING (stem)
    LEFT JOIN known ON known.uri = image.uri"""
# SQLite compares text by its UTF-8 bytes. This is the order of code points, which Python and S3 use too.
_FREEZE = f"""
    INSERT INTO manifest
    SELECT row_number() OVER (ORDER BY image.uri) - 1, image.uri,
        coalesce(label.uri, alias.uri, image.label), image.size, image.version
    FROM {_INPUTS} WHERE NOT ({_UNCHANGED}) ORDER BY image.uri LIMIT ?
"""
_FREEZE_CHANGES = """
    INSERT INTO change
    SELECT row_number() OVER (ORDER BY image_uri) - 1, * FROM (
        SELECT image_uri, iif(known.uri IS NULL, 'new', 'changed'), manifest.version, known.version
        FROM manifest LEFT JOIN known ON known.uri = manifest.image_uri
        UNION ALL
        SELECT uri AS image_uri, 'gone', NULL, version FROM known WHERE uri NOT IN (SELECT uri FROM image)
    ) ORDER BY image_uri
"""
_COUNT_UNCHANGED = f"SELECT count(*) FROM {_INPUTS} WHERE {_UNCHANGED}"

# URI, label from the same manifest row, object info, and stem by which a label file pairs with the image.
Input = tuple[str, str | None, ObjectInfo | None, str | None]
# URI, label, size and version of an input that is not processed again while all four stay the same.
Known = tuple[str, str | None, int | None, str | None]


@dataclass(frozen=True)
class Changes:
    """Differences between a manifest and the inputs known before.

    Attributes:
        table: Rows of `CHANGES_SCHEMA`, sorted by URI: new and changed images in the manifest, and known images that
            are gone.
        unchanged: Number of known images that the manifest leaves out.
    """

    table: FrozenTable
    unchanged: int

    def counts(self) -> dict[str, int]:
        """Return the number of new, changed, unchanged and gone images."""
        counts = {"new": 0, "changed": 0, "unchanged": self.unchanged, "gone": 0}
        for row in self.table.rows():
            counts[row["change"]] += 1
        return counts


class Manifest(FrozenTable):
    """Frozen list of a run's inputs: rows of `MANIFEST_SCHEMA`, sorted by URI.

    Attributes:
        changes: Differences from the inputs known before; None if there was no comparison.
    """

    def __init__(self, database: sqlite3.Connection, changes: Changes | None = None) -> None:
        super().__init__(database, "manifest", MANIFEST_SCHEMA)
        self.changes = changes


class ManifestTable:
    """Collection of images, labels and known inputs, which can be added in any order."""

    def __init__(self) -> None:
        self._compares = False
        self._database = temporary_database(_TABLES)

    def add_images(self, inputs: Iterable[Input]) -> None:
        """Add images; `freeze` reports a URI that was added twice.

        Raises:
            ConfigError: If a name is not valid UTF-8.
        """
        rows = ((uri, label, info and info.size, info and info.version, stem) for uri, label, info, stem in inputs)
        self._add(_ADD_IMAGE, rows)

    def add_labels(self, labels: Iterable[tuple[str, str]]) -> None:
        """Add (stem, URI) of label files; each pairs with the images of its stem."""
        self._add(_ADD_LABEL, labels)

    def add_label_aliases(self, labels: Iterable[tuple[str, str, str]]) -> None:
        """Add (stem, URI, own stem) of label files for images whose stem has no label from `add_labels`."""
        self._add(_ADD_ALIAS, labels)

    def add_known(self, inputs: Iterable[Known]) -> None:
        """Add inputs that `freeze` leaves out unless they have changed; the last entry of a URI counts."""
        self._compares = True
        self._add(_ADD_KNOWN, inputs)

    def forget(self, uris: Iterable[str]) -> None:
        """Remove inputs that were added as known."""
        self._compares = True
        self._add(_FORGET, ((uri,) for uri in uris))

    def freeze(self, source: str, limit: int | None = None) -> Manifest:
        """Return the first `limit` inputs by URI, without unchanged known ones.

        Args:
            source: Name of the inputs' source for messages, such as their prefix.
            limit: Largest number of inputs; None for all.

        Raises:
            ConfigError: If an image was added twice, or two labels pair with one stem. The message names them, and
                `source` for repeated images.
        """
        if self._database.execute("SELECT EXISTS (SELECT 1 FROM alias)").fetchone()[0]:
            self._database.execute(_DROP_USED_ALIASES)
        self._refuse_ambiguous_labels()
        self._database.execute(_FREEZE, (-1 if limit is None else limit,))
        self._refuse_duplicates(source)
        changes = self._freeze_changes() if self._compares else None
        # The frozen tables are independent of the collected ones, which would only take space.
        self._database.executescript("DROP TABLE image; DROP TABLE label; DROP TABLE alias; DROP TABLE known")
        return Manifest(self._database, changes)

    def _freeze_changes(self) -> Changes:
        self._database.execute(_FREEZE_CHANGES)
        unchanged = self._database.execute(_COUNT_UNCHANGED).fetchone()[0]
        return Changes(FrozenTable(self._database, "change", CHANGES_SCHEMA), unchanged)

    def _add(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Run a statement for all rows in one transaction."""
        self._database.execute("BEGIN")
        try:
            self._database.executemany(statement, rows)
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the name {error.object!r} is not valid UTF-8: rename the file or leave it out"
            ) from None
        finally:
            self._database.execute("COMMIT")

    def _refuse_ambiguous_labels(self) -> None:
        exact = "SELECT stem, uri, other FROM label WHERE other IS NOT NULL ORDER BY stem LIMIT 1"
        # An alias may be ambiguous if no image needs it.
        alias = (
            "SELECT stem, min(alias.uri), max(alias.uri) FROM alias JOIN image USING (stem) "
            "LEFT JOIN label USING (stem) WHERE label.uri IS NULL "
            "GROUP BY stem HAVING count(DISTINCT alias.uri) > 1 ORDER BY stem LIMIT 1"
        )
        for stem, first, second in itertools.chain(self._database.execute(exact), self._database.execute(alias)):
            raise ConfigError(f"labels {first} and {second} both pair with `{stem}`: remove one")

    def _refuse_duplicates(self, source: str) -> None:
        query = "SELECT count(*), min(uri) FROM image JOIN manifest ON image_uri = uri WHERE times > 1"
        count, first = self._database.execute(query).fetchone()
        if count:
            raise ConfigError(f"{source} names {count} images twice, first {first}: remove the repetition")
