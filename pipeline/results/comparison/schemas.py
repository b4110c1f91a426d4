"""Schemas of the tables of a comparison.

A is the run that is named first. An undefined value is null in every table, never 0.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.results.schema.columns import column

__all__ = ["AGREEMENT", "CHANGED_IMAGES", "COMPARISON", "ONLY_ONE"]


_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
_RUNS = (
    column("run_id_a", _STRING, "run_id of A"),
    column("run_id_b", _STRING, "run_id of B"),
)
_IMAGE = (
    column("image_uri", _STRING, "the image, as in both manifests"),
    column("image_version", _STRING, "version (ETag) in both manifests", null="of an object that is not there"),
)

COMPARISON = pa.schema(
    [
        *_RUNS,
        column("class_id", _ID, "class id, the value in the masks", null="in the row of the mean"),
        column("class_name", _STRING, "name of the class; mean in the row of the mean"),
        column("iou_a", _RATIO, "IoU of A over the compared images with a label", null="where undefined", unit="0–1"),
        column("iou_b", _RATIO, "the same of B", null="where undefined", unit="0–1"),
        column("difference", _RATIO, "iou_b - iou_a", null="where one is undefined", unit="−1–1"),
        column(
            "difference_low",
            _RATIO,
            "lower end of its 95% interval",
            null="where too few images have the class",
            unit="−1–1",
        ),
        column("difference_high", _RATIO, "upper end", null="likewise", unit="−1–1"),
        column(
            "verdict",
            _STRING,
            "higher or lower (B, where the interval excludes 0), else no difference shown",
            null="without an interval",
        ),
        column(
            "images",
            _COUNT,
            "compared images whose label holds the class; of the mean: that have a label",
            null="never",
            unit="images",
        ),
        column("pixels_a", _COUNT, "of the class in the masks of A, all compared images", null="never", unit="pixels"),
        column("pixels_b", _COUNT, "the same of B", null="never", unit="pixels"),
        column("pixels_both", _COUNT, "of the class in both masks", null="never", unit="pixels"),
        column(
            "agreement",
            _RATIO,
            "pixels_both / pixels in either; of the mean: their mean",
            null="where in neither",
            unit="0–1",
        ),
    ]
)
AGREEMENT = pa.schema(
    [
        *_RUNS,
        column("class_id_a", _ID, "class id in the mask of A"),
        column("class_name_a", _STRING, "its name"),
        column("class_id_b", _ID, "class id in the mask of B"),
        column("class_name_b", _STRING, "its name"),
        column("pixels", _COUNT, "of this pair, all pixels of all compared images", unit="pixels"),
    ]
)
CHANGED_IMAGES = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        column("pixels", _COUNT, "of the image", unit="pixels"),
        column("changed_pixels", _COUNT, "of another class in B than in A", unit="pixels"),
        column("changed_share", _RATIO, "changed_pixels / pixels", unit="0–1"),
        column(
            "mean_iou_a",
            _RATIO,
            "mean IoU of the image in A",
            null="unless A and B have the same label of it",
            unit="0–1",
        ),
        column("mean_iou_b", _RATIO, "the same of B", null="likewise", unit="0–1"),
        column("mean_iou_difference", _RATIO, "mean_iou_b - mean_iou_a", null="likewise", unit="−1–1"),
    ]
)
ONLY_ONE = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        column("segmented_in", _STRING, "a or b: the run that has a mask"),
        column("error_stage", _STRING, "of the other run: fetch, decode, label, predict or encode", null="never"),
        column("error_type", _STRING, "of the other run: kind of error", null="never"),
        column("error_message", _STRING, "of the other run: what was wrong", null="never"),
    ]
)
