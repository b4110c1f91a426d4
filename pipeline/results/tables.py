"""Reader of a committed run for analysts: tables as data frames, masks as numpy arrays.

Example:
    run = Run("s3://bucket/out/x")
    run.class_scores(), run.mask("s3://bucket/in/0001.jpg")
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.label_spaces import LabelSpace, label_space, network_label_space
from pipeline.data.labels import decode_mask
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, IncompleteRun, ObjectMissing
from pipeline.results.schema.encoding import part_order, read_parquet
from pipeline.results.schema.schemas import PREDICTIONS, TABLE_FORMAT

__all__ = ["RUN_FILE", "SUCCESS", "Run"]

RUN_FILE = "run.json"
SUCCESS = "_SUCCESS.json"
_PATH = re.compile(r"[\w-]+(/[\w-]+)*\.\w+")
# Columns that are cheap to read for every image: all but the masks and the nested counts.
_LIGHT = tuple(name for name in PREDICTIONS.names if name not in ("mask", "classes"))


class Run:
    """Reader of the tables and masks of a committed run.

    Args:
        output: URI of the folder that holds the run.
        storage: Storage to read from; None for the default retries.

    Attributes:
        output: URI of the run, without a slash at the end.
        storage: Storage that the run is read from.
        success: Content of `_SUCCESS.json`.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        ConfigError: If the table format is unknown, or `_SUCCESS.json` names files outside the run.
    """

    def __init__(self, output: str, storage: Storage | None = None) -> None:
        self.output = output.rstrip("/")
        self.storage = storage or Storage()
        # Files of each folder that was read, first URI of each manifest file, and all URIs of the last such file.
        self._listed: dict[str, list[tuple[str, int]]] = {}
        self._first_uris: dict[str, str] = {}
        self._last_uris: tuple[str, list[str]] = ("", [])
        try:
            self.success: dict[str, Any] = json.loads(self.storage.read(self._uri(SUCCESS)))
        except ObjectMissing as error:
            raise IncompleteRun(
                f"{output} has no {SUCCESS}, so the run is not committed: submit its segment_bucket.py command again"
            ) from error
        if self.success.get("format") != TABLE_FORMAT:
            raise ConfigError(
                f"{output} has table format {self.success.get('format')!r}, this version reads only {TABLE_FORMAT}: "
                "upgrade it"
            )
        for entry in self.success["files"]:
            # The file is not trusted: readers open the paths that it names, so they must stay below the run.
            if not _PATH.fullmatch(entry["path"]) or ".." in entry["path"]:
                raise ConfigError(f"{output}/{SUCCESS} names {entry['path']!r}, which is not a file below the run")

    @property
    def classes(self) -> list[str]:
        """Return the class names, by class id."""
        return list(self.success["classes"])

    def info(self) -> dict[str, Any]:
        """Return the content of `run.json`: identity, settings, checkpoint, manifest, provenance."""
        return json.loads(self.storage.read(self._uri(RUN_FILE)))

    def label_space(self) -> LabelSpace:
        """Return the label space in which the run read its labels."""
        info = self.info()
        named = info.get("settings", {}).get("label_space")
        # Without a label space in its settings, the run read labels by the classes of its network.
        keys = ("classes", "palette", "ignore_label")
        own = {**info.get("network", {}), **{key: self.success[key] for key in keys}}
        return label_space(named).ordered_as(self.classes) if named else network_label_space(own)

    def class_scores(self) -> pd.DataFrame:
        """Return the `class_scores` table: one row per class."""
        return self._frame("class_scores.parquet")

    def confusion(self) -> pd.DataFrame:
        """Return the confusion matrix in pixels: rows are target classes, columns are predicted classes."""
        long = self._frame("confusion.parquet")
        return long.pivot(index="target_name", columns="predicted_name", values="pixels").loc[
            self.classes, self.classes
        ]

    def errors(self) -> pd.DataFrame:
        """Return the `errors` table: one row per image that failed."""
        return self._frame("errors.parquet")

    def image_scores(self) -> pd.DataFrame:
        """Return the `image_scores` table: one row per segmented image and class."""
        return self._frames("image_scores/", None)

    def manifest(self) -> pd.DataFrame:
        """Return the `manifest` table: one row per input."""
        return self._frames("manifest/", None)

    def changes(self) -> pd.DataFrame:
        """Return the `changes` table: one row per image that changed since `--since`'s run; empty without `--since`."""
        return self._frames("changes/", None)

    def predictions(self, columns: Sequence[str] = _LIGHT) -> pd.DataFrame:
        """Return the `predictions` table: one row per input image, in manifest order.

        Args:
            columns: Names of the columns to read. The default leaves out the masks and the counts per class.
        """
        return self._frames("predictions/", list(columns))

    def tables(self, folder: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield the files of a table in order, one at a time.

        Args:
            folder: Folder of the table's files below the run, such as "predictions/".
            columns: Names of the columns to read; None for all.
        """
        for path, _ in self._parts(folder):
            yield read_parquet(self.storage, self._uri(path), columns)

    def inputs(self) -> Iterator[tuple[str, str | None]]:
        """Yield (image URI, label URI or None) of every input, in manifest order; one file is in memory at a time."""
        for table in self.tables("manifest/", ["image_uri", "label_uri"]):
            yield from zip(table["image_uri"].to_pylist(), table["label_uri"].to_pylist(), strict=True)

    def row(self, folder: str, position: int, columns: Sequence[str]) -> dict[str, Any]:
        """Return the row at a position of a table, fetching only one row group of the columns.

        Rows of "predictions/" and "manifest/" correspond by position.

        Args:
            folder: Folder of the table's files: "predictions/" or "manifest/".
            position: Index of the row in the whole table, from 0.
            columns: Names of the columns to read.

        Raises:
            IndexError: If the folder has no such row.
        """
        # The committed file list holds row counts, so no file before the right one is opened.
        start = 0
        for path, rows in self._parts(folder):
            if start <= position < start + rows:
                table, offset = self._group_at(path, position - start, columns)
                return dict(table.slice(offset, 1).to_pylist()[0])
            start += rows
        raise IndexError(
            f"{folder} of {self.output} has {start} rows and no row {position}: run jobs/verify.py on the run"
        )

    def mask(self, image_uri: str) -> NDArray[np.uint8]:
        """Return the mask of one image as (H, W) uint8 class ids, fetching at most one row group of masks.

        Args:
            image_uri: URI of the image, as in the manifest.

        Raises:
            KeyError: If the image is not in the run, or failed.
        """
        row = self.row("predictions/", self._position(image_uri), ["image_uri", "mask"])
        if row["image_uri"] != image_uri or row["mask"] is None:
            raise KeyError(f"{image_uri} has no mask in {self.output}: see errors()")
        return decode_mask(row["mask"]["bytes"])

    def masks(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Yield the URI and the (H, W) uint8 mask of every segmented image; one row group is in memory at a time."""
        for path, rows in self._parts("predictions/"):
            position = 0
            while position < rows:
                table, offset = self._group_at(path, position, ["image_uri", "mask"])
                position += table.num_rows - offset
                for batch in table.to_batches(max_chunksize=1):
                    for row in batch.to_pylist():
                        if row["mask"] is not None:
                            yield row["image_uri"], decode_mask(row["mask"]["bytes"])

    def _group_at(self, path: str, position: int, columns: Sequence[str]) -> tuple[pa.Table, int]:
        """Return the row group that holds the row at a position of a file, and the row's index in the group."""

        def attempt(filesystem: Any, full: str) -> tuple[pa.Table, int]:
            with filesystem.open(full, "rb") as file, pq.ParquetFile(file) as parquet:
                offset = position
                group = 0
                while offset >= parquet.metadata.row_group(group).num_rows:
                    offset -= parquet.metadata.row_group(group).num_rows
                    group += 1
                return parquet.read_row_group(group, columns=list(columns)), offset

        return self.storage.call("read", self._uri(path), attempt)

    def _position(self, image_uri: str) -> int:
        """Return the position of an image in the manifest; one file of the manifest is in memory at a time.

        Raises:
            KeyError: If the image is not in the manifest.
        """
        # The manifest is sorted by URI: the first URIs of its files lead to one file, and its URIs to the row.
        parts = [part for part in self._parts("manifest/") if part[1]]
        number = bisect_right(parts, image_uri, key=lambda part: self._first_uri(part[0])) - 1
        uris = self._uris(parts[number][0]) if number >= 0 else []
        index = bisect_left(uris, image_uri)
        if index == len(uris) or uris[index] != image_uri:
            raise KeyError(f"{image_uri} is not in the manifest of {self.output}")
        return sum(rows for _, rows in parts[:number]) + index

    def _first_uri(self, path: str) -> str:
        if path not in self._first_uris:
            self._first_uris[path] = self._uris(path)[0]
        return self._first_uris[path]

    def _uris(self, path: str) -> list[str]:
        """Return the image URIs of a manifest file, and keep those of the last file."""
        if self._last_uris[0] != path:
            table = read_parquet(self.storage, self._uri(path), ["image_uri"])
            self._last_uris = path, table["image_uri"].to_pylist()
        return self._last_uris[1]

    def _parts(self, folder: str) -> list[tuple[str, int]]:
        """Return path and number of rows of each file below a folder, in the order of the manifest."""
        if folder not in self._listed:
            files = ((entry["path"], entry["rows"]) for entry in self.success["files"])
            found = [part for part in files if part[0].startswith(folder)]
            # Earlier versions listed the files in the order of their names as text.
            self._listed[folder] = sorted(found, key=lambda part: part_order(part[0]))
        return self._listed[folder]

    def _frames(self, folder: str, columns: list[str] | None) -> pd.DataFrame:
        tables = list(self.tables(folder, columns))
        if not tables:
            return pd.DataFrame(columns=columns)
        # Manifest files of version 0.2.0 and older lack `label_version`; a later version may have continued the run.
        return pa.concat_tables(tables, promote_options="default").to_pandas()

    def _frame(self, path: str) -> pd.DataFrame:
        return read_parquet(self.storage, self._uri(path)).to_pandas()

    def _uri(self, path: str) -> str:
        return join(self.output, path)
