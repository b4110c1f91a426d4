"""Schemas of the tables below `scores/`. Undefined is always null, never 0; pixels of the ignore label never count."""

from __future__ import annotations

import pyarrow as pa

from pipeline.results.schema.columns import column

__all__ = ["CLASSES", "IMAGES", "IMAGE_CLASSES", "RELIABILITY", "RUN"]

# Columns that several tables share.
_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
_SHARE = {"unit": "0–1"}
_RUN_ID = column("run_id", _STRING, "run_id of the run", example="5ae0c1b2d3f40718")
_IMAGE_URI = column("image_uri", _STRING, "the image, as in the manifest", example="s3://bucket/in/a/0001.jpg")
_CLASS = (
    column("class_id", _ID, "class id, the value in the mask", example=3),
    column("class_name", _STRING, "name of the class", example="road"),
)
_CLASS_SCORES = (
    column("iou", _RATIO, "intersection / union", null="where the class is neither in label nor mask", **_SHARE),
    column("dice", _RATIO, "2 intersection / (predicted + target)", null="likewise", **_SHARE),
    column("precision", _RATIO, "intersection / predicted", null="where nothing was predicted", **_SHARE),
    column(
        "recall",
        _RATIO,
        "intersection / target: the accuracy of the class",
        null="where the label holds none",
        **_SHARE,
    ),
    column(
        "boundary_iou", _RATIO, "IoU of the pixels near an outline (2% of the diagonal)", null="without any", **_SHARE
    ),
)
_VALUE = column(
    "value", _RATIO, "from the sums over all scored images", null="where undefined", example=0.573, **_SHARE
)
_LOW = column(
    "low", _RATIO, "lower end of its 95% interval, a bootstrap over images", null="with too few images", **_SHARE
)
_HIGH = column("high", _RATIO, "upper end", null="likewise", **_SHARE)
_SCORE = column("score", _STRING, "name of the score", example="boundary_iou")

# One row per scored image.
IMAGES = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        column("pixels", _COUNT, "valid label pixels", unit="pixels", example=171322),
        column("mean_iou", _RATIO, "mean IoU over the classes that have one", null="without any", **_SHARE),
        column("mean_dice", _RATIO, "mean Dice over the classes that have one", null="likewise", **_SHARE),
        column("pixel_accuracy", _RATIO, "share of the pixels predicted right", null="likewise", **_SHARE),
        column("mean_accuracy", _RATIO, "mean recall over the classes of the label", null="likewise", **_SHARE),
        column(
            "frequency_weighted_iou",
            _RATIO,
            "IoU of the classes of the label, weighted by their pixels",
            null="likewise",
            **_SHARE,
        ),
        column(
            "mean_boundary_iou", _RATIO, "mean boundary IoU over the classes that have one", null="likewise", **_SHARE
        ),
        column(
            "boundary_width",
            _ID,
            "on each side of an outline, what boundary IoU counts",
            unit="pixels",
            example=12,
        ),
        column(
            "expected_calibration_error",
            _RATIO,
            "mean |confidence − accuracy| over 15 bins",
            null="without confidence maps",
            **_SHARE,
        ),
    ]
)
# One row per scored image and class.
IMAGE_CLASSES = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        *_CLASS,
        *_CLASS_SCORES,
        column(
            "boundary_intersection", _COUNT, "near an outline in label and mask, of the class in both", unit="pixels"
        ),
        column("boundary_union", _COUNT, "near an outline of the class in label or mask", unit="pixels"),
    ]
)
# One row per score of the whole run.
RUN = pa.schema(
    [_RUN_ID, _SCORE, _VALUE, _LOW, _HIGH, column("images", _COUNT, "scored images", unit="images", example=101)]
)
# One row per class and score, over all scored images.
CLASSES = pa.schema([_RUN_ID, *_CLASS, _SCORE, _VALUE, _LOW, _HIGH])
# One row per bin, of all classes together and of each class.
RELIABILITY = pa.schema(
    [
        _RUN_ID,
        column("class_id", _ID, "predicted class", null="in the rows of all classes together"),
        column("class_name", _STRING, "its name", null="likewise"),
        column("confidence_low", _RATIO, "lower end of the bin", example=0.8, **_SHARE),
        column("confidence_high", _RATIO, "upper end of the bin; only the last one holds it", example=0.8667, **_SHARE),
        column("pixels", _COUNT, "valid label pixels of these confidences", unit="pixels", example=99120),
        column("mean_confidence", _RATIO, "their mean confidence", null="without pixels", **_SHARE),
        column("accuracy", _RATIO, "share of them predicted right", null="without pixels", **_SHARE),
    ]
)
