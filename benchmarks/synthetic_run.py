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
from pipeline.data.manifest_table import MANIFEST_SCHEMA
from pipeline.results.schema.derived import ClassSums, class_scores_table, confusion_table
from pipeline.results.schema.encoding import MASK_ROWS_PER_GROUP, parquet_bytes
from pipeline.results.schema.schemas import ERRORS, IMAGE_SCORES, PREDICTIONS, TABLE_FORMAT
from pipeline.results.statistics.scores import confusion_matrix, mean_iou, pixel_accuracy

__all__ = ["SHARD_IMAGES", "write_made_up_run"]

SHARD_IMAGES = 64
_SPACE = label_space("voc")
_PAIRS = 64  # different pairs of label and mask, which all images share
_RUN_ID = "0" * 16
Counts = NDArray[np.int64]


def write_made_up_run(
    folder: Path,
    images: int,
    *,
    side: int = 256,
    classes: int = len(_SPACE.classes),
    labelled: bool = True,
    inputs: Path | None = None,
) -> None:
    """Write a committed run below a folder; its images share one file, and 64 pairs of label and mask.

    Args:
        folder: Folder of the run.
        images: Number of images.
        side: Height and width of images, labels and masks, in pixels; a multiple of 8.
        classes: Number of classes C, at most VOC's 21.
        labelled: Whether the images have labels.
        inputs: Folder of the inputs of an earlier run of the same size, which get other masks; None writes new inputs
            into `folder`.
    """
    generator = np.random.default_rng(0)
    pairs = _Pairs(generator, side, classes, inputs or folder, flaws=0.1 if inputs is None else 0.15)
    sums = ClassSums(classes)
    confusion = np.zeros((classes, classes), np.int64)
    files = list[dict[str, Any]]()
    for shard, start in enumerate(range(0, images, SHARD_IMAGES)):
        # Many names of one file: storage normalizes a path before it opens the file.
        numbers = range(start, min(start + SHARD_IMAGES, images))
        part = _Part(
            generator, [f"{inputs or folder}/{number:09d}/../image.jpg" for number in numbers], pairs, labelled
        )
        confusion += part.confusions.sum(axis=0)
        tables = {"image_scores": part.image_scores(), "predictions": part.predictions(), "manifest": part.manifest()}
        sums.add(tables["image_scores"])
        files += [_write(folder, f"{name}/part-{shard:06d}.parquet", table) for name, table in tables.items()]
    whole = {"class_scores": class_scores_table(_RUN_ID, pairs.names, sums), "errors": ERRORS.empty_table()}
    whole["confusion"] = confusion_table(_RUN_ID, pairs.names, confusion, labelled=labelled)
    files += [_write(folder, f"{name}.parquet", table) for name, table in whole.items()]
    _describe(folder, images, confusion if labelled else np.zeros_like(confusion), files)


class _Pairs:
    """Labels, masks, and their counts.

    Args:
        generator: Source of the choice of classes.
        side: Height and width, in pixels.
        classes: Number of classes C.
        folder: Folder of the image and the labels.
        flaws: Fraction of the 64 blocks of a mask that have another class than in the label.

    Attributes:
        names: Names of the C classes.
        side: Height and width, in pixels.
        labels: URIs of the labels.
        masks: Masks as palette PNG.
        confusions: (64, C, C) confusion matrices.
        scores: (64, 2) pixel accuracy and mean IoU.
    """

    def __init__(self, generator: np.random.Generator, side: int, classes: int, folder: Path, flaws: float) -> None:
        self.names = _SPACE.classes[:classes]
        self.side = side
        self.labels = [f"{folder}/label-{number:02d}.png" for number in range(_PAIRS)]
        # (64, 8, 8) blocks of one class each.
        labels = generator.integers(0, classes, (_PAIRS, 8, 8), dtype=np.uint8)
        masks = np.where(generator.random(labels.shape) < flaws, (labels + 1) % classes, labels)
        large = [ids.repeat(side // 8, axis=1).repeat(side // 8, axis=2) for ids in (labels, masks)]
        self.masks = [encode_mask(ids.astype(np.uint8), _SPACE.palette) for ids in large[1]]
        found = [confusion_matrix(label, mask, classes) for label, mask in zip(large[0], large[1], strict=True)]
        self.confusions = np.stack(found)
        self.scores = np.array([(pixel_accuracy(each), mean_iou(each)) for each in found])
        sink = io.BytesIO()
        Image.fromarray(np.asarray(_SPACE.palette, np.uint8)[large[0][0]]).save(sink, "JPEG")
        (folder / "image.jpg").write_bytes(sink.getvalue())
        for path, ids in zip(self.labels, large[0], strict=True):
            Path(path).write_bytes(encode_mask(ids, _SPACE.palette))


class _Part:
    """Tables of one shard, whose images have random pairs of label and mask.

    Args:
        generator: Source of the choice of pairs.
        uris: URIs of the N images.
        pairs: Pairs to choose from.
        labelled: Whether the images have labels.

    Attributes:
        confusions: (N, C, C) confusion matrices.
    """

    def __init__(self, generator: np.random.Generator, uris: list[str], pairs: _Pairs, labelled: bool) -> None:
        self._labelled = labelled
        self._generator = generator
        self._uris = uris
        self._pairs = pairs
        self._chosen = generator.integers(0, _PAIRS, len(uris))
        self.confusions = pairs.confusions[self._chosen]
        self._target = self.confusions.sum(axis=2)
        self._predicted = self.confusions.sum(axis=1)
        self._inter = self.confusions.diagonal(axis1=1, axis2=2)

    def image_scores(self) -> pa.Table:
        """Return the `image_scores` table, one row per image and class."""
        union = self._predicted + self._target - self._inter
        uris = np.repeat(self._uris, len(self._pairs.names))
        columns = {"run_id": [_RUN_ID] * union.size, "image_uri": uris, **self._classes()}
        columns |= {"union": self._scored(union), "iou": self._scored(_ratio(self._inter, union))}
        columns["dice"] = self._scored(_ratio(2 * self._inter, self._predicted + self._target))
        return _table(columns, IMAGE_SCORES)

    def predictions(self) -> pa.Table:
        """Return the `predictions` table, one row per image."""
        rows = len(self._uris)
        draw = self._generator
        kind = PREDICTIONS.field("classes").type
        counts = [pa.array(column, kind.value_type.field(name).type) for name, column in self._classes().items()]
        structs = pa.StructArray.from_arrays(counts, fields=list(kind.value_type))
        offsets = np.arange(rows + 1, dtype=np.int32) * len(self._pairs.names)
        masks = [{"bytes": self._pairs.masks[pair]} for pair in self._chosen]
        columns: dict[str, Any] = dict.fromkeys(PREDICTIONS.names, [None] * rows)
        columns |= {"run_id": [_RUN_ID] * rows, "image_uri": self._uris, "status": ["ok"] * rows}
        columns |= {"height": [self._pairs.side] * rows, "width": [self._pairs.side] * rows, "mask": masks}
        columns["classes"] = pa.ListArray.from_arrays(offsets, structs, kind)
        scores = self._pairs.scores[self._chosen]
        columns |= {"pixel_accuracy": self._scored(scores[:, 0]), "mean_iou": self._scored(scores[:, 1])}
        columns |= {"mean_confidence": draw.beta(8, 2, rows), "mean_entropy": draw.gamma(2, 0.2, rows)}
        columns["seconds"] = draw.gamma(9, 0.02, rows)
        return _table(columns, PREDICTIONS)

    def manifest(self) -> pa.Table:
        """Return the `manifest` table, one row per image."""
        nothing = [None] * len(self._uris)
        labels = [self._pairs.labels[pair] for pair in self._chosen] if self._labelled else nothing
        columns = {**dict.fromkeys(MANIFEST_SCHEMA.names, nothing), "image_uri": self._uris, "label_uri": labels}
        return _table(columns, MANIFEST_SCHEMA)

    def _classes(self) -> dict[str, Any]:
        """Return the columns that image scores and predictions share, one value per image and class."""
        names = self._pairs.names
        return {
            "class_id": np.tile(np.arange(len(names), dtype=np.int32), len(self._uris)),
            "class_name": list(names) * len(self._uris),
            "predicted_pixels": self._predicted.ravel(),
            "target_pixels": self._scored(self._target),
            "intersection": self._scored(self._inter),
        }

    def _scored(self, values: NDArray[Any]) -> NDArray[Any] | list[None]:
        """Return the values in one dimension, or as many times None without labels."""
        return values.ravel() if self._labelled else [None] * values.size


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
    classes = len(confusion)
    success |= {"classes": _SPACE.classes[:classes], "palette": _SPACE.palette[:classes], "ignore_label": 255}
    info = {"settings": {"label_space": None}, "manifest": {"rows": images}, "identity": _RUN_ID * 4}
    for name, content in {"_SUCCESS.json": success, "run.json": info}.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    """Return the element-wise quotient, NaN where the divisor is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
