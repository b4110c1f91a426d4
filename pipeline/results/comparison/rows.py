"""Rows of a run's images by URI, with one file of each table in memory, and the join of two runs' rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import IncompleteRun
from pipeline.results.statistics.scores import Floats
from pipeline.results.tables import Run

__all__ = ["ImageRow", "image_rows", "merge_join"]

Item = TypeVar("Item")


def merge_join(
    first: Iterable[Item], second: Iterable[Item], key: Callable[[Item], str]
) -> Iterator[tuple[Item | None, Item | None]]:
    """Pair the items of two sorted streams by key; an item without a partner is paired with None.

    Args:
        first: Items in strictly ascending order of their keys.
        second: Items in strictly ascending order of their keys.
        key: Function that returns the key of an item.

    Yields:
        (item of `first`, item of `second`) in ascending order of keys; at most one of them is None.
    """
    firsts = iter(first)
    seconds = iter(second)
    left = next(firsts, None)
    right = next(seconds, None)
    # Take the item with the smaller key, or both if the keys are equal.
    while left is not None or right is not None:
        taken_left = left if right is None or (left is not None and key(left) <= key(right)) else None
        taken_right = right if left is None or (right is not None and key(right) <= key(left)) else None
        yield taken_left, taken_right
        left = left if taken_left is None else next(firsts, None)
        right = right if taken_right is None else next(seconds, None)


_ERROR = ("error_stage", "error_type", "error_message")
_LIGHT = ("image_uri", "image_version", "status", "height", "width", *_ERROR)
_TARGETS = "classes.list.element.target_pixels"
_MASKS = ("mask", "classes", "mean_iou")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """Row of one image in one run.

    If the image was not segmented, all attributes after `ok` except `error` are None. `mask`, `counts` and `mean_iou`
    are also None if masks were not requested.

    Attributes:
        position: Index of the row in `predictions`, from 0.
        uri: URI of the image, as in the manifest.
        version: Version (ETag) of the image, as in the manifest; None if there is none.
        label_uri: URI of the label, as in the manifest; None without a label.
        ok: Whether the image was segmented.
        size: Height and width, pixels.
        targets: (C,) pixels of each class in the label; None without a label.
        error: Stage, type and message of the error; three None if `ok`.
        mask: PNG bytes of the mask.
        counts: (2, C) intersections and unions, pixels; None without a label.
        mean_iou: Mean IoU of the image in [0, 1]; None without a label.
    """

    position: int
    uri: str
    version: str | None
    label_uri: str | None
    ok: bool
    size: tuple[int, int] | None
    targets: Floats | None
    error: tuple[str | None, str | None, str | None]
    mask: bytes | None = None
    counts: Floats | None = None
    mean_iou: float | None = None


def image_rows(run: Run, *, masks: bool) -> Iterator[ImageRow]:
    """Yield the rows of all images of a run, by URI.

    Args:
        run: Committed run.
        masks: Whether to read masks and scores too.

    Raises:
        IncompleteRun: If the rows are not those of the manifest, or not sorted by URI.
    """
    columns = (*_LIGHT, *(_MASKS if masks else (_TARGETS,)))
    inputs = run.inputs()
    position = 0
    before = ""
    for part in run.tables("predictions/", columns):
        for row in _part_rows(part, len(run.classes), position, inputs, masks):
            # A row out of order would break the merge join, which relies on strictly ascending URIs.
            if row is None or (row.uri <= before and position):
                raise _damaged(run, position)
            before = row.uri
            position = position + 1
            yield row
    # Inputs that are left have no row in predictions.
    if next(inputs, None) is not None:
        raise _damaged(run, position)


def _part_rows(
    part: pa.Table, classes: int, position: int, inputs: Iterator[tuple[str, str | None]], masks: bool
) -> Iterator[ImageRow | None]:
    """Yield the rows of one file; the first row that does not match the manifest yields None and ends the file."""
    light = zip(*(part[name].to_pylist() for name in _LIGHT), strict=True)
    targets = _of_classes(part, "target_pixels", classes)
    heavy = _Masks(part, targets, classes) if masks else None
    for at, (uri, version, status, height, width, *error) in enumerate(light):
        expected, label_uri = next(inputs, (None, None))
        if expected != uri:
            yield None
            return
        ok = status == "ok"
        yield ImageRow(
            position + at,
            uri,
            version,
            label_uri,
            ok,
            (height, width) if ok else None,
            None if np.isnan(targets[at]).any() else targets[at],
            (error[0], error[1], error[2]),
            *(heavy.row(at) if heavy else ()),
        )


class _Masks:
    """Masks and scores of one file, which the comparison reads and the inventory does not."""

    def __init__(self, part: pa.Table, targets: Floats, classes: int) -> None:
        # Two (N, C) arrays -> (N, 2, C) intersections and unions; NaN without a label.
        inter, predicted = (_of_classes(part, name, classes) for name in ("intersection", "predicted_pixels"))
        self._counts = np.stack([inter, predicted + targets - inter], axis=1)
        self._masks = part["mask"]
        self._scores = part["mean_iou"]

    def row(self, at: int) -> tuple[bytes | None, Floats | None, float | None]:
        mask = self._masks[at].as_py()
        counts = self._counts[at]
        return mask and mask["bytes"], None if np.isnan(counts).any() else counts, self._scores[at].as_py()


def _of_classes(part: pa.Table, name: str, classes: int) -> Floats:
    """Return a field of the column `classes` as (N, C); NaN where it is null."""
    column = part["classes"].combine_chunks()
    values = pc.struct_field(pc.list_flatten(column), name).to_numpy(zero_copy_only=False)
    # The flattened list skips failed images, whose rows stay NaN.
    found = np.full((len(column), classes), np.nan)
    found[column.is_valid().to_numpy(zero_copy_only=False)] = values.reshape(-1, classes)
    return found


def _damaged(run: Run, position: int) -> IncompleteRun:
    return IncompleteRun(
        f"row {position} of predictions in {run.output} does not match the manifest, or is not sorted by image_uri: "
        "run jobs/verify.py on the run"
    )
