"""Temporary table of a run's inputs: sorted, paired and checked for duplicates in bounded memory.

SQLite keeps the table in an unnamed temporary file, which disappears with the process, however that ends.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.data.frozen_table import FrozenTable, temporary_database
from pipeline.data.storage import ObjectInfo
from pipeline.errors import ConfigError

__all__ = [
    "CHANGES_SCHEMA",
    "CHANGE_KINDS",
    "IDENTITY_COLUMNS",
    "MANIFEST_SCHEMA",
    "Changes",
    "Input",
    "Known",
    "Manifest",
    "ManifestTable",
    "describe_changes",
]

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("label_uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("label_version", pa.string()),
    ]
)
# Columns of the manifest that identify a run. Manifests of version 0.2.0 and older have no others.
IDENTITY_COLUMNS = ("image_uri", "label_uri", "size", "version")
# Values of `change` in the order in which messages count them. The table has no rows for unchanged images.
CHANGE_KINDS = ("new", "changed", "relabeled", "retried", "unchanged", "gone")
CHANGES_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("earlier_version", pa.string()),
    ]
)
_TABLES = """
    CREATE TABLE image (
        uri TEXT PRIMARY KEY, label TEXT, size INTEGER, version TEXT, stem TEXT, label_version TEXT, times INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE label (stem TEXT PRIMARY KEY, uri TEXT, version TEXT, other TEXT) WITHOUT ROWID;
    CREATE TABLE alias (stem TEXT, uri TEXT, version TEXT, own_stem TEXT, PRIMARY KEY (stem, uri)) WITHOUT ROWID;
    CREATE TABLE known (
        uri TEXT PRIMARY KEY, label TEXT, size INTEGER, version TEXT, label_version TEXT, failed INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE manifest (
        position INTEGER PRIMARY KEY, image_uri TEXT, label_uri TEXT, size INTEGER, version TEXT, label_version TEXT,
        change TEXT, earlier_version TEXT
    );
    CREATE TABLE change (
        position INTEGER PRIMARY KEY, image_uri TEXT, change TEXT, version TEXT, earlier_version TEXT
    );
"""
_ADD_IMAGE = """
    INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT (uri) DO UPDATE SET times = times + 1
"""
_ADD_LABEL = "INSERT INTO label VALUES (?, ?, ?, NULL) ON CONFLICT (stem) DO UPDATE SET other = excluded.uri"
_ADD_ALIAS = "INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?)"
# A label whose own stem is that of an image belongs to that image only.
_DROP_USED_ALIASES = "DELETE FROM alias WHERE own_stem IN (SELECT stem FROM image)"
_ADD_KNOWN = "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, 0)"
_MARK_FAILED = "UPDATE known SET failed = 1 WHERE uri = ?"
_FORGET = "DELETE FROM known WHERE uri = ?"
# Inputs with their labels and what is known of them; SQLite takes `version` from the row with the smallest URI.
_INPUTS = """
    SELECT image.uri, image.size, image.version, coalesce(label.uri, alias.uri, image.label) AS label_uri,
        CASE
            WHEN label.uri IS NOT NULL THEN label.version
            WHEN alias.uri IS NOT NULL THEN alias.version
            ELSE image.label_version
        END AS label_version,
        known.uri AS known, known.label AS known_label, known.size AS known_size, known.version AS known_version,
        known.label_version AS known_label_version, known.failed
    FROM image LEFT JOIN label USING (stem)
        LEFT JOIN (SELECT stem, min(uri) AS uri, version FROM alias GROUP BY stem) AS alias USING (stem)
        LEFT JOIN known ON known.uri = image.uri
"""
# The change is null for an unchanged image. An object without a version may have changed. An image that was missing and
# still is has neither version nor size.
_COMPARED = f"""
    SELECT *, CASE
        WHEN known IS NULL THEN 'new'
        WHEN known_version IS NULL AND known_size IS NOT NULL THEN 'changed'
        WHEN (known_version, known_size, known_label) IS NOT (version, size, label_uri) THEN 'changed'
        WHEN :relabeled AND known_label_version IS NOT label_version THEN 'relabeled'
        WHEN failed THEN 'retried'
    END AS change FROM ({_INPUTS})
"""
# SQLite compares text by its UTF-8 bytes. This is the order of code points, which Python and S3 use too.
_FREEZE = f"""
    INSERT INTO manifest
    SELECT row_number() OVER (ORDER BY uri) - 1, uri, label_uri, size, version, label_version,
        change, iif(change = 'relabeled', known_label_version, known_version)
    FROM ({_COMPARED}) WHERE change IS NOT NULL ORDER BY uri LIMIT :limit
"""
_FREEZE_CHANGES = """
    INSERT INTO change
    SELECT row_number() OVER (ORDER BY image_uri) - 1, * FROM (
        SELECT image_uri, change, iif(change = 'relabeled', label_version, version), earlier_version FROM manifest
        UNION ALL
        SELECT uri AS image_uri, 'gone', NULL, version FROM known WHERE uri NOT IN (SELECT uri FROM image)
    ) ORDER BY image_uri
"""
_COUNT_UNCHANGED = f"SELECT count(*) FROM ({_COMPARED}) WHERE change IS NULL"

# URI, label from a manifest file, object info, stem by which a label of `add_labels` pairs with the image, and version
# of the label from the manifest file.
Input = tuple[str, str | None, ObjectInfo | None, str | None, str | None]
# URI, label, size and version of an input that is not processed again while all four stay the same, and its label's
# version.
Known = tuple[str, str | None, int | None, str | None, str | None]


@dataclass(frozen=True)
class Changes:
    """Differences between a manifest and the inputs known before.

    Attributes:
        table: Rows of `CHANGES_SCHEMA`, sorted by URI: all images of the manifest, and known images that are gone.
        unchanged: Number of known images that the manifest leaves out.
    """

    table: FrozenTable
    unchanged: int

    def counts(self) -> dict[str, int]:
        """Return the number of new, changed, unchanged and gone images, and of relabeled and retried ones if any."""
        counts = {"new": 0, "changed": 0, "unchanged": self.unchanged, "gone": 0}
        for row in self.table.rows():
            counts[row["change"]] = counts.get(row["change"], 0) + 1
        return counts


def describe_changes(counts: Mapping[str, Any]) -> str:
    """Return the counts by kind of change in words, such as `2 new, 1 changed, 1,200 unchanged, 0 gone`."""
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in CHANGE_KINDS if kind in counts)


class Manifest(FrozenTable):
    """Frozen list of a run's inputs: rows of `MANIFEST_SCHEMA`, sorted by URI, whose digest leaves out `label_version`.

    Attributes:
        changes: Differences from the inputs known before; None if there was no comparison.
    """

    def __init__(self, database: sqlite3.Connection, changes: Changes | None = None) -> None:
        super().__init__(database, "manifest", MANIFEST_SCHEMA, IDENTITY_COLUMNS)
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
        rows = (
            (uri, label, info and info.size, info and info.version, stem, label_version)
            for uri, label, info, stem, label_version in inputs
        )
        self._add(_ADD_IMAGE, rows)

    def add_labels(self, labels: Iterable[tuple[str, str, str | None]]) -> None:
        """Add (stem, URI, version) of label files; each pairs with the images of its stem."""
        self._add(_ADD_LABEL, labels)

    def add_label_aliases(self, labels: Iterable[tuple[str, str, str | None, str]]) -> None:
        """Add (stem, URI, version, own stem) of label files for images whose stem has no label from `add_labels`."""
        self._add(_ADD_ALIAS, labels)

    def add_known(self, inputs: Iterable[Known]) -> None:
        """Add inputs that `freeze` leaves out unless they have changed; the last entry of a URI counts."""
        self._compares = True
        self._add(_ADD_KNOWN, inputs)

    def mark_failed(self, uris: Iterable[str]) -> None:
        """Mark known inputs as failed, so that `freeze` keeps them although they have not changed."""
        self._add(_MARK_FAILED, ((uri,) for uri in uris))

    def forget(self, uris: Iterable[str]) -> None:
        """Remove inputs that were added as known."""
        self._compares = True
        self._add(_FORGET, ((uri,) for uri in uris))

    def freeze(self, source: str, limit: int | None = None, *, relabeled: bool = False) -> Manifest:
        """Return the first `limit` inputs by URI, without unchanged known ones.

        A failed input is kept, although it has not changed.

        Args:
            source: Name of the inputs' source for messages, such as their prefix.
            limit: Largest number of inputs; None for all.
            relabeled: Whether known inputs also count as changed if their label's version is not the known one.

        Raises:
            ConfigError: If an image was added twice, or two labels pair with one stem. The message names them, and
                `source` for repeated images.
        """
        if self._database.execute("SELECT EXISTS (SELECT 1 FROM alias)").fetchone()[0]:
            self._database.execute(_DROP_USED_ALIASES)
        self._refuse_ambiguous_labels()
        options = {"relabeled": relabeled, "limit": -1 if limit is None else limit}
        self._database.execute(_FREEZE, options)
        self._refuse_duplicates(source)
        changes = self._freeze_changes(options) if self._compares else None
        # The frozen tables are independent of the collected ones, which would only take space.
        self._database.executescript("DROP TABLE image; DROP TABLE label; DROP TABLE alias; DROP TABLE known")
        return Manifest(self._database, changes)

    def _freeze_changes(self, options: Mapping[str, int]) -> Changes:
        self._database.execute(_FREEZE_CHANGES)
        unchanged = self._database.execute(_COUNT_UNCHANGED, options).fetchone()[0]
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
