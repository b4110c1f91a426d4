"""Commit of a run: every row of the parts is checked, tables are derived, `_SUCCESS.json` comes last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.storage import Storage, join
from pipeline.errors import IncompleteRun
from pipeline.results.schema.derived import (
    ClassSums,
    class_scores_table,
    confusion_table,
    errors_table,
    image_scores_table,
)
from pipeline.results.schema.encoding import parquet_bytes, part_order
from pipeline.results.schema.schemas import ERRORS, TABLE_FORMAT
from pipeline.results.statistics.scores import Matrix, mean_iou, pixel_accuracy
from pipeline.results.tables import SUCCESS
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.shards import FrozenFile, finished_shards, part_name, part_uri, read_part

__all__ = ["commit"]

# Parts in memory at a time, each with its own thread.
_THREADS = 8


@dataclass(frozen=True)
class _Derived:
    """Contribution of one part to the run; it holds no pixels, and only the names of images that failed.

    Attributes:
        files: Entries of `_SUCCESS.json` for the part and for its image scores.
        errors: Rows of `errors`.
        sums: Rows of `image_scores` without the image URI.
        confusion: (C, C) pixels of the labeled images by target and predicted class.
    """

    files: list[dict[str, Any]]
    errors: pa.Table
    sums: pa.Table
    confusion: Matrix


@dataclass
class _Totals:
    """Sums over the parts that were added so far.

    Attributes:
        classes: Number of classes C.
        files: Entries of `_SUCCESS.json`.
        errors: Rows of `errors`, one table per part.
        sums: Sums of the image scores by class.
        confusion: (C, C) pixels of the labeled images by target and predicted class.
    """

    classes: int
    files: list[dict[str, Any]] = field(default_factory=list)
    errors: list[pa.Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = ClassSums(self.classes)
        self.confusion = np.zeros((self.classes, self.classes), np.int64)

    def add(self, derived: _Derived) -> None:
        """Add the contribution of one part."""
        self.files += derived.files
        self.errors.append(derived.errors)
        self.sums.add(derived.sums)
        self.confusion += derived.confusion


def commit(plan: Plan, storage: Storage) -> dict[str, Any]:
    """Derive all tables from the parts, and mark the run as complete.

    Two drivers derive equal files, so a second driver that commits at the same time does no harm. Only a few parts are
    in memory at a time; the memory for pixels does not grow with the run.

    Args:
        plan: Plan of the run.
        storage: Storage of the output.

    Returns:
        Content of `_SUCCESS.json`.

    Raises:
        IncompleteRun: If a part is missing, its rows are not the manifest's, its counts contradict each other, or too
            many images failed; nothing is committed, and all parts stay.
        RunConflict: If a file of another run lies among the parts.
    """
    missing = set(range(plan.shards)) - finished_shards(storage, plan.config.output, plan.identity)
    if missing:
        raise IncompleteRun(
            f"{len(missing)} of {plan.shards} shards have no part yet, first {min(missing)}: "
            "submit the same command again"
        )
    totals = _Totals(len(plan.spec.classes))
    for derived in _derive_all(plan, storage):
        totals.add(derived)
    errors = pa.concat_tables(totals.errors) if totals.errors else ERRORS.empty_table()
    _check_errors(plan, errors.num_rows)
    _check_sums(totals)
    totals.files += _write_run_tables(plan, storage, totals, errors)
    success = _success(plan, totals, errors.num_rows)
    # The presence of this file is the commit, so it comes last. No value in it depends on the writer or the time.
    storage.write_once(join(plan.config.output, SUCCESS), json.dumps(success, indent=1).encode())
    return success


def _derive_all(plan: Plan, storage: Storage) -> Iterator[_Derived]:
    """Yield the contributions of all parts, in the order of the shards."""
    with ThreadPoolExecutor(_THREADS) as pool:
        # `map` starts all its calls at once. Groups of shards keep unread results from piling up in memory.
        for start in range(0, plan.shards, _THREADS):
            shards = range(start, min(start + _THREADS, plan.shards))
            yield from pool.map(lambda shard: _derive(plan, storage, shard), shards)


def _derive(plan: Plan, storage: Storage, shard: int) -> _Derived:
    """Check a part against the manifest, write its image scores, and return its contribution.

    Raises:
        IncompleteRun: If the rows of the part are not the manifest's.
        RunConflict: If the part belongs to another run or shard.
    """
    data = storage.read(part_uri(plan.config.output, shard, plan.identity))
    part = read_part(data, shard, plan.identity)
    expected = plan.shard_slice(shard)["image_uri"]
    if part.table["image_uri"].to_pylist() != expected.to_pylist():
        raise IncompleteRun(f"part {shard} does not hold the manifest's rows: remove it and submit the command again")
    name = part_name(shard, plan.identity)
    scores = image_scores_table(part.table)
    files = [
        _entry(f"predictions/{name}", part.table.num_rows, data),
        _write(plan, storage, f"image_scores/{name}", scores),
    ]
    return _Derived(files, errors_table(part.table), scores.drop_columns(["image_uri"]), part.confusion)


def _write_run_tables(plan: Plan, storage: Storage, totals: _Totals, errors: pa.Table) -> list[dict[str, Any]]:
    """Write the tables of the whole run; return their entries and those of the frozen files."""
    names = plan.spec.classes
    tables = {
        "class_scores.parquet": class_scores_table(plan.run_id, names, totals.sums),
        "confusion.parquet": confusion_table(plan.run_id, names, totals.confusion, labelled=totals.sums.labelled > 0),
        "errors.parquet": errors,
    }
    return [
        *(_frozen_entry(plan, storage, file) for file in plan.frozen_files()),
        *(_write(plan, storage, path, table) for path, table in tables.items()),
    ]


def _frozen_entry(plan: Plan, storage: Storage, file: FrozenFile) -> dict[str, Any]:
    # Read back, not encoded again: another version of pyarrow may have written other bytes.
    return _entry(file.path, file.rows().num_rows, storage.read(join(plan.config.output, file.path)))


def _write(plan: Plan, storage: Storage, path: str, table: pa.Table) -> dict[str, Any]:
    """Write a table below the output; return its entry of `_SUCCESS.json`."""
    data = parquet_bytes(table)
    storage.write(join(plan.config.output, path), data)
    return _entry(path, table.num_rows, data)


def _entry(path: str, rows: int, data: bytes) -> dict[str, Any]:
    return {"path": path, "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _check_errors(plan: Plan, errors: int) -> None:
    """Raise IncompleteRun if more images failed than `max_error_fraction` allows."""
    images = plan.manifest.num_rows
    limit = plan.config.max_error_fraction
    if errors > limit * images:
        raise IncompleteRun(
            f"{errors} of {images} images failed, more than --max-error-fraction {limit} allows: nothing is committed. "
            f"See status and error_message in {plan.config.output}/predictions, then mend the inputs under another "
            "--output, or submit again with a higher limit"
        )


def _check_sums(totals: _Totals) -> None:
    """Raise IncompleteRun if the confusion matrix, from footers, and the sums, from columns, disagree."""
    for row in totals.sums.rows():
        inter = row["intersection"]
        of_class = totals.confusion[row["class_id"]]
        if inter is not None and (inter != of_class[row["class_id"]] or row["target"] != of_class.sum()):
            raise IncompleteRun(f"class {row['class_id']}: confusion and image scores disagree; the parts are damaged")


def _success(plan: Plan, totals: _Totals, errors: int) -> dict[str, Any]:
    """Return the content of `_SUCCESS.json`."""
    labelled = totals.sums.labelled > 0
    since = {} if plan.since is None else {"since": dict(plan.since)}
    return {
        "format": TABLE_FORMAT,
        "run_id": plan.run_id,
        "identity": plan.identity,
        "images": plan.manifest.num_rows,
        "errors": errors,
        "labelled_images": totals.sums.labelled,
        "mean_iou": mean_iou(totals.confusion) if labelled else None,
        "pixel_accuracy": pixel_accuracy(totals.confusion) if labelled else None,
        "classes": list(plan.spec.classes),
        "palette": [list(colour) for colour in plan.spec.palette],
        "ignore_label": plan.spec.ignore_label,
        **since,
        "files": sorted(totals.files, key=lambda entry: part_order(entry["path"])),
    }
