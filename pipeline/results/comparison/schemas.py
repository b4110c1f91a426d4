"""Schemas of the tables of a comparison.

A is the run that is named first. An undefined value is null in every table, never 0.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.results.schema.schemas import column

__all__ = ["AGREEMENT", "CHANGED_IMAGES", "COMPARISON", "ONLY_ONE"]


_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
# Texts for the conditions under which a column is null.
_NO_VERSION = "if the file is missing or its storage states no version"
_NO_SHARED_LABEL = "unless A and B scored the image with the same label"
_RUNS = (
    column("run_id_a", _STRING, "identifier of run A"),
    column("run_id_b", _STRING, "identifier of run B"),
)
_IMAGE = (
    column("image_uri", _STRING, "URI of the image, as in both manifests"),
    column("image_version", _STRING, "version (ETag) of the image file, as in both manifests", null=_NO_VERSION),
)

COMPARISON = pa.schema(
    [
        *_RUNS,
        column("class_id", _ID, "class id: the pixel value in the masks", null="in the row of the mean"),
        column("class_name", _STRING, "class name; the word mean in the row of the mean"),
        column(
            "iou_a",
            _RATIO,
            "IoU of A over the compared images with the same label in both runs",
            null="if undefined",
            unit="0–1",
        ),
        column("iou_b", _RATIO, "IoU of B over the same images", null="if undefined", unit="0–1"),
        column("difference", _RATIO, "iou_b - iou_a", null="if iou_a or iou_b is null", unit="−1–1"),
        column(
            "difference_low",
            _RATIO,
            "lower end of the 95% interval of the difference",
            null="if too few images contain the class",
            unit="−1–1",
        ),
        column(
            "difference_high",
            _RATIO,
            "upper end of the 95% interval of the difference",
            null="if too few images contain the class",
            unit="−1–1",
        ),
        column(
            "verdict",
            _STRING,
            "B against A: higher or lower if the interval excludes 0, else no difference shown",
            null="if there is no interval",
        ),
        column(
            "images",
            _COUNT,
            "number of compared images whose label contains the class; in the row of the mean: with a label",
            null="never",
            unit="images",
        ),
        column(
            "pixels_a",
            _COUNT,
            "number of pixels of the class in the masks of A; in the row of the mean: all pixels",
            null="never",
            unit="pixels",
        ),
        column(
            "pixels_b",
            _COUNT,
            "number of pixels of the class in the masks of B; in the row of the mean: all pixels",
            null="never",
            unit="pixels",
        ),
        column(
            "pixels_both",
            _COUNT,
            "number of pixels with the class in both masks; in the row of the mean: with equal classes",
            null="never",
            unit="pixels",
        ),
        column(
            "agreement",
            _RATIO,
            "pixels_both / pixels with the class in either mask; in the row of the mean: mean over the classes",
            null="if the class is in no mask",
            unit="0–1",
        ),
    ]
)
AGREEMENT = pa.schema(
    [
        *_RUNS,
        column("class_id_a", _ID, "class id in the mask of A"),
        column("class_name_a", _STRING, "class name in the mask of A"),
        column("class_id_b", _ID, "class id in the mask of B"),
        column("class_name_b", _STRING, "class name in the mask of B"),
        column("pixels", _COUNT, "number of pixels with this pair of classes, over all compared images", unit="pixels"),
    ]
)
CHANGED_IMAGES = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        column("pixels", _COUNT, "number of pixels of the image", unit="pixels"),
        column("changed_pixels", _COUNT, "number of pixels whose class differs between A and B", unit="pixels"),
        column("changed_share", _RATIO, "changed_pixels / pixels", unit="0–1"),
        column(
            "mean_iou_a",
            _RATIO,
            "mean IoU of the image in A",
            null=_NO_SHARED_LABEL,
            unit="0–1",
        ),
        column("mean_iou_b", _RATIO, "mean IoU of the image in B", null=_NO_SHARED_LABEL, unit="0–1"),
        column("mean_iou_difference", _RATIO, "mean_iou_b - mean_iou_a", null=_NO_SHARED_LABEL, unit="−1–1"),
    ]
)
ONLY_ONE = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        column("segmented_in", _STRING, "run that segmented the image: a or b"),
        column(
            "error_stage", _STRING, "stage that failed in the other run: fetch, decode, label or predict", null="never"
        ),
        column("error_type", _STRING, "kind of error in the other run", null="never"),
        column("error_message", _STRING, "reason for the error in the other run", null="never"),
    ]
)
