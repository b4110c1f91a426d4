"""An analyst's reader: data frames and numpy masks of a committed run, in two lines.

run = Run("s3://bucket/out/x")
run.class_scores(), run.mask("s3://bucket/in/0001.jpg")
"""

from __future__ import annotations

import json
import re
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
from pipeline.results.encoding import read_parquet
from pipeline.results.schemas import PREDICTIONS, TABLE_FORMAT

__all__ = ["RUN_FILE", "SUCCESS", "Run"]

RUN_FILE, SUCCESS = "run.json", "_SUCCESS.json"
_PATH = re.compile(r"[\w-]+(/[\w-]+)*\.\w+")
_LIGHT = tuple(name for name in PREDICTIONS.names if name not in ("mask", "classes"))


class Run:
    """A committed run below `output`.

    Raises:
        IncompleteRun: if no run is committed there.
        ConfigError: if its table format is unknown, or it names files elsewhere.
    """

    def __init__(self, output: str, storage: Storage | None = None) -> None:
        self.output, self.storage = output.rstrip("/"), storage or Storage()
        try:
            self.success: dict[str, Any] = json.loads(self.storage.read(self._uri(SUCCESS)))
        except ObjectMissing as error:
            raise IncompleteRun(
                f"{output} holds no {SUCCESS}: the run is not committed; submit its segment_bucket.py command again"
            ) from error
        if self.success.get("format") != TABLE_FORMAT:
            raise ConfigError(
                f"{output} has table format {self.success.get('format')!r}, this version reads {TABLE_FORMAT}: upgrade"
            )
        for entry in self.success["files"]:
            # Whoever wrote this file is not believed: readers open what it names.
            if not _PATH.fullmatch(entry["path"]) or ".." in entry["path"]:
                raise ConfigError(f"{output}/{SUCCESS} names {entry['path']!r}, which is no file below the run")

    @property
    def classes(self) -> list[str]:
        """Class names by id."""
        return list(self.success["classes"])

    def info(self) -> dict[str, Any]:
        """What `run.json` says: identity, settings, checkpoint, manifest, provenance."""
        return json.loads(self.storage.read(self._uri(RUN_FILE)))

    def label_space(self) -> LabelSpace:
        """Return the label space in which the run read its labels."""
        info = self.info()
        named = info.get("settings", {}).get("label_space")
        keys = ("classes", "palette", "ignore_label")
        own = {**info.get("network", {}), **{key: self.success[key] for key in keys}}
        return label_space(named) if named else network_label_space(own)

    def class_scores(self) -> pd.DataFrame:
        """One row per class."""
        return self._frame("class_scores.parquet")

    def confusion(self) -> pd.DataFrame:
        """Pixels, rows the target class, columns the predicted class."""
        long = self._frame("confusion.parquet")
        return long.pivot(index="target_name", columns="predicted_name", values="pixels").loc[
            self.classes, self.classes
        ]

    def errors(self) -> pd.DataFrame:
        """One row per image that failed."""
        return self._frame("errors.parquet")

    def image_scores(self) -> pd.DataFrame:
        """One row per image and class."""
        return self._frames("image_scores/", None)

    def manifest(self) -> pd.DataFrame:
        """The inputs."""
        return self._frames("manifest/", None)

    def changes(self) -> pd.DataFrame:
        """What was new, changed or gone since the run that `--since` named; no rows without one."""
        return self._frames("changes/", None)

    def predictions(self, columns: Sequence[str] = _LIGHT) -> pd.DataFrame:
        """One row per input image, in manifest order; masks only where `columns` asks for them."""
        return self._frames("predictions/", list(columns))

    def tables(self, folder: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Columns (None: all) of the files below `folder`, such as "predictions/", in order, one at a time."""
        for path, _ in self._parts(folder):
            yield read_parquet(self.storage, self._uri(path), columns)

    def inputs(self) -> Iterator[tuple[str, str | None]]:
        """(image URI, label URI or None) of every input, in manifest order, a file at a time."""
        for table in self.tables("manifest/", ["image_uri", "label_uri"]):
            yield from zip(table["image_uri"].to_pylist(), table["label_uri"].to_pylist(), strict=True)

    def row(self, folder: str, position: int, columns: Sequence[str]) -> dict[str, Any]:
        """One row of "predictions/" or "manifest/", whose rows pair by position; fetches one row group of `columns`.

        Raises:
            IndexError: if the folder has no such row.
        """
        start = 0
        for path, rows in self._parts(folder):
            if start <= position < start + rows:
                return self._row_at(path, position - start, columns)
            start += rows
        raise IndexError(f"{folder} of {self.output} has {start} rows, none at {position}: verify the run")

    def mask(self, image_uri: str) -> NDArray[np.uint8]:
        """Class ids of one image, (H, W) uint8; fetches no more than one row group of masks.

        Raises:
            KeyError: if the image is not in the run, or failed.
        """
        row = self.row("predictions/", self._position(image_uri), ["image_uri", "mask"])
        if row["image_uri"] != image_uri or row["mask"] is None:
            raise KeyError(f"{image_uri} has no mask in {self.output}: see errors()")
        return decode_mask(row["mask"]["bytes"])

    def masks(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """(image URI, class ids (H, W)) of every segmented image, a row group in memory at a time."""
        for path, _ in self._parts("predictions/"):
            with self._open(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(100, columns=["image_uri", "mask"]):
                    yield from _decoded(batch)

    def _row_at(self, path: str, position: int, columns: Sequence[str]) -> dict[str, Any]:
        with self._open(path) as file:
            parquet = pq.ParquetFile(file)
            group = 0
            while position >= parquet.metadata.row_group(group).num_rows:
                position -= parquet.metadata.row_group(group).num_rows
                group += 1
            found = parquet.read_row_group(group, columns=list(columns)).slice(position, 1)
        return dict(found.to_pylist()[0])

    def _position(self, image_uri: str) -> int:
        uris = self.manifest()["image_uri"]
        position = int(uris.searchsorted(image_uri))
        if position == len(uris) or uris.iloc[position] != image_uri:
            raise KeyError(f"{image_uri} is not in the manifest of {self.output}")
        return position

    def _parts(self, folder: str) -> list[tuple[str, int]]:
        return [(entry["path"], entry["rows"]) for entry in self.success["files"] if entry["path"].startswith(folder)]

    def _frames(self, folder: str, columns: list[str] | None) -> pd.DataFrame:
        tables = list(self.tables(folder, columns))
        if not tables:
            return pd.DataFrame(columns=columns)
        return pa.concat_tables(tables).to_pandas()

    def _frame(self, path: str) -> pd.DataFrame:
        return read_parquet(self.storage, self._uri(path)).to_pandas()

    def _open(self, path: str) -> Any:
        filesystem, full = self.storage.filesystem(self._uri(path))
        return filesystem.open(full, "rb")

    def _uri(self, path: str) -> str:
        return join(self.output, path)


def _decoded(batch: pa.RecordBatch) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for row in batch.to_pylist():
        if row["mask"] is not None:
            yield row["image_uri"], decode_mask(row["mask"]["bytes"])
