"""Builders of small committed runs, in the form that the segmentation job writes, and of damaged ones."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.data.labels import encode_mask
from pipeline.results.schema import schemas
from pipeline.results.schema.derived import (
    ClassSums,
    class_scores_table,
    confusion_table,
    errors_table,
    image_scores_table,
)
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.statistics.scores import class_counts, confusion_matrix, mean_iou, pixel_accuracy, pixel_counts

CLASSES = ("sky", "building", "road", "tree", "car")
PALETTE = ((128, 128, 128), (128, 0, 0), (128, 64, 128), (128, 128, 0), (64, 0, 128))
Change = Callable[[int, np.ndarray], np.ndarray]
RUN_ID = "0123456789abcdef"
IDENTITY = "0123456789abcdef" * 4
IGNORE = 255

MANIFEST = pa.schema(
    [("image_uri", pa.string()), ("label_uri", pa.string()), ("size", pa.int64()), ("version", pa.string())]
)


def scene(seed: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (image, label, prediction): a street of blocks with a void border, and a prediction with flaws."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    horizon = height // 2 + int(rng.integers(-4, 5))
    label[horizon - height // 4 : horizon, : width // 2] = 1
    label[horizon - height // 6 : horizon, width // 2 :] = 3
    label[horizon:] = 2
    left = int(rng.integers(4, width - 20))
    label[horizon - 2 : horizon + height // 6, left : left + width // 5] = 4
    predicted = np.roll(label, int(rng.integers(0, 5)), axis=1)
    flaws = rng.random((height, width)) < 0.02 * (seed % 5)
    predicted[flaws] = rng.integers(0, 4, flaws.sum())
    image = np.asarray(PALETTE, np.float64)[label] + rng.normal(0, 18, (height, width, 3)) + 30
    label[:2] = label[-2:] = IGNORE
    return image.clip(0, 255).astype(np.uint8), label, predicted.astype(np.uint8)


def entropy(index: int) -> float:
    """Return the mean entropy of an image in nats, by its number; it differs between any seven consecutive images."""
    return 0.1 + 0.05 * (3 * index % 7)


def write_run(
    directory: Path,
    images: int = 7,
    *,
    labels: bool | str = True,
    failed: tuple[int, ...] = (2, 5),
    shard_images: int = 3,
    size: tuple[int, int] = (48, 64),
    name: str = "out",
    run_id: str = RUN_ID,
    changed: Change = lambda index, mask: mask,
    relabelled: Change = lambda index, label: label,
    image_names: Sequence[str] | None = None,
    first_shard: int = 0,
) -> str:
    """Write a committed run; return its output folder.

    `labels` "some" labels every other image. `changed` and `relabelled` give other masks and labels than those of the
    scene. `image_names` are sorted paths without extension. `first_shard` is the number of the first part; no
    part before it exists.
    """
    output = directory / name
    files: dict[str, tuple[bytes, int]] = {}
    sums, total, errors = (
        ClassSums(len(CLASSES)),
        np.zeros((5, 5), np.int64),
        len(set(failed) & set(range(images))),
    )
    entries = []
    parts = []
    for index in range(images):
        labelled = labels is True or (labels == "some" and index % 2 == 0)
        image_name = f"{index:04d}" if image_names is None else image_names[index]
        entry, row, confusion = _row(
            directory, index, image_name, labelled, index in failed, size, run_id, changed, relabelled
        )
        entries.append(entry)
        parts.append((row, confusion))
    for shard, start in enumerate(range(0, images, shard_images), first_shard):
        chunk = parts[start : start + shard_images]
        table = pa.Table.from_pylist([row for row, _ in chunk], schema=schemas.PREDICTIONS)
        total += sum((counts for _, counts in chunk if counts is not None), np.zeros((5, 5), np.int64))
        sums.add(image_scores_table(table))
        name = f"part-{shard:06d}-{IDENTITY[:12]}.parquet"
        files[f"predictions/{name}"] = parquet_bytes(table, row_group_rows=2), table.num_rows
        scores = image_scores_table(table)
        files[f"image_scores/{name}"] = parquet_bytes(scores, row_group_rows=1000), scores.num_rows
        files[f"manifest/{name}"] = _manifest(entries[start : start + shard_images])
    if not images:
        files["manifest/part-000000.parquet"] = _manifest([])
    rows = pa.Table.from_pylist([row for row, _ in parts], schema=schemas.PREDICTIONS)
    tables = {"class_scores": class_scores_table(run_id, CLASSES, sums)}
    tables["confusion"] = confusion_table(run_id, CLASSES, total, labelled=sums.labelled > 0)
    tables["errors"] = errors_table(rows)
    for name, table in tables.items():
        files[f"{name}.parquet"] = parquet_bytes(table), table.num_rows
    for path, (data, _) in files.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(data)
    _write_json(output / "run.json", _run_json(images, run_id))
    _write_json(output / "_SUCCESS.json", _success(images, errors, total, files, run_id))
    return str(output)


def relist(output: str) -> None:
    """Make ``_SUCCESS.json`` match the present files, as a careful forger would do."""
    path = Path(output) / "_SUCCESS.json"
    success = json.loads(path.read_text())
    for entry in success["files"]:
        data = (Path(output) / entry["path"]).read_bytes()
        rows = pq.read_metadata(pa.BufferReader(data)).num_rows
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": rows}
    _write_json(path, success)


def _row(
    directory: Path,
    index: int,
    name: str,
    labelled: bool,
    fails: bool,
    size: tuple[int, int],
    run_id: str,
    changed: Change,
    relabelled: Change,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray | None]:
    image, label, predicted = scene(index, *size)
    label = relabelled(index, label)
    predicted = changed(index, predicted)
    image_path = directory / f"in/{name}.png"
    label_path = directory / f"labels/{name}.png"
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    image_path.write_bytes(buffer.getvalue())
    Image.fromarray(label).save(label_path)
    entry = {"image_uri": str(image_path), "label_uri": str(label_path) if labelled else None}
    entry |= {"size": image_path.stat().st_size, "version": f"v{index}"}
    base = {"run_id": run_id, "image_uri": str(image_path), "image_version": f"v{index}", "seconds": 0.5}
    if fails:
        error = {
            "error_stage": "decode",
            "error_type": "DecodeError",
            "error_message": "damaged: <truncated>",
        }
        return entry, base | {"status": "error"} | error, None
    confusion = confusion_matrix(label, predicted, len(CLASSES), IGNORE) if labelled else None
    row = base | {
        "status": "ok",
        "height": size[0],
        "width": size[1],
        "mask": {"bytes": encode_mask(predicted, PALETTE), "path": None},
        "classes": class_counts(CLASSES, pixel_counts(predicted, len(CLASSES)), confusion),
        "pixel_accuracy": None if confusion is None else pixel_accuracy(confusion),
        "mean_iou": None if confusion is None else mean_iou(confusion),
        "mean_confidence": 0.9,
        "mean_entropy": entropy(index),
    }
    return entry, row, confusion


def _manifest(entries: list[dict[str, Any]]) -> tuple[bytes, int]:
    return parquet_bytes(pa.Table.from_pylist(entries, schema=MANIFEST)), len(entries)


def _run_json(images: int, run_id: str) -> dict[str, Any]:
    return {
        "format": 1,
        "run_id": run_id,
        "identity": IDENTITY,
        "settings": {"geometry": "image", "label_space": None, "window": 1236},
        "checkpoint": {"uri": "s3://b/network.safetensors", "sha256": "00" * 32},
        "manifest": {"rows": images, "digest": "11" * 32},
        "shards": {"count": 3, "images_per_shard": 3},
        "provenance": {"created_at": "2026-01-01T00:00:00Z"},
    }


def _success(
    images: int, errors: int, total: np.ndarray, files: dict[str, tuple[bytes, int]], run_id: str
) -> dict[str, Any]:
    return {
        "format": 1,
        "run_id": run_id,
        "identity": IDENTITY,
        "images": images,
        "errors": errors,
        "mean_iou": mean_iou(total),
        "pixel_accuracy": pixel_accuracy(total),
        "files": [
            {"path": path, "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, (data, rows) in sorted(files.items())
        ],
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_label": IGNORE,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
