"""Synthetic committed run of any number of images, without a network: tables as the segmentation job writes them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.label_spaces import label_space
from pipeline.data.labels import encode_mask
from pipeline.results.schema.derived import ClassSums, class_scores_table, confusion_table
from pipeline.results.schema.encoding import MASK_ROWS_PER_GROUP, parquet_bytes
from pipeline.results.schema.schemas import ERRORS, IMAGE_SCORES, PREDICTIONS, TABLE_FORMAT
from pipeline.results.statistics.scores import mean_iou, pixel_accuracy

__all__ = ["SHARD_IMAGES", "write_made_up_run"]

SHARD_IMAGES = 64
_SPACE = label_space("voc")
_CLASSES = len(_SPACE.classes)
_SIDE = 256
_RUN_ID = "0" * 16
Counts = NDArray[np.int64]


def write_made_up_run(folder: Path, images: int) -> None:
    """Write a run of VOC's classes below a folder; one image, one label and one mask stand for all of them."""
    generator = np.random.default_rng(0)
    mask = _write_inputs(folder, generator)
    sums = ClassSums(_CLASSES)
    confusion = np.zeros((_CLASSES, _CLASSES), np.int64)
    files = list[dict[str, Any]]()
    for shard, start in enumerate(range(0, images, SHARD_IMAGES)):
        # Many names of one file: storage normalizes a path before it opens the file.
        numbers = range(start, min(start + SHARD_IMAGES, images))
        part = _Part(generator, [f"{folder}/{number:09d}/../image.jpg" for number in numbers])
        confusion += part.confusion()
        tables = {"image_scores": part.image_scores(), "predictions": part.predictions(mask)}
        tables["manifest"] = part.manifest(f"{folder}/label.png")
        sums.add(tables["image_scores"])
        files += [_write(folder, f"{name}/part-{shard:06d}.parquet", table) for name, table in tables.items()]
    whole = {"class_scores": class_scores_table(_RUN_ID, _SPACE.classes, sums), "errors": ERRORS.empty_table()}
    whole["confusion"] = confusion_table(_RUN_ID, _SPACE.classes, confusion, labelled=True)
    files += [_write(folder, f"{name}.parquet", table) for name, table in whole.items()]
    _describe(folder, images, confusion, files)


class _Part:
    """Tables of one shard with random pixel counts of each class; wrong pixels are predicted as the next class."""

    def __init__(self, generator: np.random.Generator, uris: list[str]) -> None:
        self._generator = generator
        self._uris = uris
        rows = len(uris)
        self._target = (generator.dirichlet(np.full(_CLASSES, 0.3), rows) * _SIDE**2).astype(np.int64)
        self._inter = (self._target * generator.beta(5, 2, (rows, 1))).astype(np.int64)
        self._predicted = self._inter + np.roll(self._target - self._inter, 1, axis=1)

    def confusion(self) -> Counts:
        """Return the confusion matrix (C, C) of the shard."""
        inter = self._inter.sum(axis=0)
        wrong = (self._target - self._inter).sum(axis=0)
        return np.diag(inter) + np.roll(np.diag(wrong), 1, axis=1)

    def image_scores(self) -> pa.Table:
        """Return the `image_scores` table, one row per image and class."""
        union = self._predicted + self._target - self._inter
        columns = {"run_id": [_RUN_ID] * union.size, "image_uri": np.repeat(self._uris, _CLASSES), **self._classes()}
        columns |= {"union": union.ravel(), "iou": _ratio(self._inter, union).ravel()}
        columns["dice"] = _ratio(2 * self._inter, self._predicted + self._target).ravel()
        return _table(columns, IMAGE_SCORES)

    def predictions(self, mask: bytes) -> pa.Table:
        """Return the `predictions` table, one row per image."""
        rows = len(self._uris)
        draw = self._generator
        kind = PREDICTIONS.field("classes").type
        counts = [pa.array(column, kind.value_type.field(name).type) for name, column in self._classes().items()]
        structs = pa.StructArray.from_arrays(counts, fields=list(kind.value_type))
        columns: dict[str, Any] = dict.fromkeys(PREDICTIONS.names, [None] * rows)
        columns |= {"run_id": [_RUN_ID] * rows, "image_uri": self._uris, "status": ["ok"] * rows}
        columns |= {"height": [_SIDE] * rows, "width": [_SIDE] * rows, "mask": [{"bytes": mask}] * rows}
        columns["classes"] = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * _CLASSES, structs, kind)
        columns["pixel_accuracy"] = self._inter.sum(axis=1) / self._target.sum(axis=1)
        columns["mean_iou"] = np.nanmean(_ratio(self._inter, self._predicted + self._target - self._inter), axis=1)
        columns |= {"mean_confidence": draw.beta(8, 2, rows), "mean_entropy": draw.gamma(2, 0.2, rows)}
        columns["seconds"] = draw.gamma(9, 0.02, rows)
        return _table(columns, PREDICTIONS)

    def manifest(self, label: str) -> pa.Table:
        """Return the `manifest` table, one row per image."""
        return pa.table({"image_uri": self._uris, "label_uri": [label] * len(self._uris)})

    def _classes(self) -> dict[str, Any]:
        """Return the columns that image scores and predictions share, one value per image and class."""
        return {
            "class_id": np.tile(np.arange(_CLASSES, dtype=np.int32), len(self._uris)),
            "class_name": list(_SPACE.classes) * len(self._uris),
            "predicted_pixels": self._predicted.ravel(),
            "target_pixels": self._target.ravel(),
            "intersection": self._inter.ravel(),
        }


def _write_inputs(folder: Path, generator: np.random.Generator) -> bytes:
    """Write image and label, and return the label's bytes, which also serve as the mask."""
    coarse = generator.integers(0, _CLASSES, (8, 8), dtype=np.uint8)
    ids = coarse.repeat(_SIDE // 8, axis=0).repeat(_SIDE // 8, axis=1)
    sink = io.BytesIO()
    Image.fromarray(np.asarray(_SPACE.palette, np.uint8)[ids]).save(sink, "JPEG")
    (folder / "image.jpg").write_bytes(sink.getvalue())
    mask = encode_mask(ids, _SPACE.palette)
    (folder / "label.png").write_bytes(mask)
    return mask


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array(columns[field.name], field.type, from_pandas=True) for field in schema], schema=schema)


def _write(folder: Path, path: str, table: pa.Table) -> dict[str, Any]:
    """Write a table as Parquet, and return its entry for the `files` of _SUCCESS.json."""
    data = parquet_bytes(table, row_group_rows=MASK_ROWS_PER_GROUP if path.startswith("predictions") else 100_000)
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(data)
    return {"path": path, "rows": table.num_rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _describe(folder: Path, images: int, confusion: Counts, files: list[dict[str, Any]]) -> None:
    """Write _SUCCESS.json and run.json."""
    success = {"format": TABLE_FORMAT, "run_id": _RUN_ID, "images": images, "errors": 0, "files": files}
    success |= {"mean_iou": mean_iou(confusion), "pixel_accuracy": pixel_accuracy(confusion)}
    success |= {"classes": _SPACE.classes, "palette": _SPACE.palette, "ignore_label": 255}
    info = {"settings": {"label_space": _SPACE.name}, "manifest": {"rows": images}, "identity": _RUN_ID * 4}
    for name, content in {"_SUCCESS.json": success, "run.json": info}.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    """Return the element-wise quotient, NaN where the divisor is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
