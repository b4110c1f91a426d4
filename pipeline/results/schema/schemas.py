"""Schemas of the tables of a run, the single source for code and documentation.

An undefined value is null in every table, never 0, 1 or -1.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.results.schema.columns import column

__all__ = [
    "CLASS_SCORES",
    "CONFUSION",
    "ERRORS",
    "IMAGE_SCORES",
    "PREDICTIONS",
    "TABLE_FORMAT",
    "predictions_schema",
]

# Version of the tables' format, recorded in _SUCCESS.json; a reader refuses any other.
TABLE_FORMAT = 1

_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
# Hugging Face `datasets` displays a struct with these fields as an image.
_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
# Texts for the conditions under which a column is null.
_FAILED = "if error"
_NO_LABEL = "without a label"
_NO_LABELS = "without labels"
_CLASS_COUNTS = pa.struct(
    [
        column("class_id", _ID, "class id, the value in the mask", null="never", example=3),
        column("class_name", _STRING, "name of the class", null="never", example="road"),
        column(
            "predicted_pixels",
            _COUNT,
            "pixels predicted as the class; only valid label pixels where there is a label",
            null="never",
            unit="pixels",
            example=40211,
        ),
        column("target_pixels", _COUNT, "of the class in the label", null=_NO_LABEL, unit="pixels", example=41870),
        column("intersection", _COUNT, "where both agree", null=_NO_LABEL, unit="pixels", example=39002),
    ]
)
_RUN_ID = column("run_id", _STRING, "first 16 digits of the run's identity", example="5ae0c1b2d3f40718")
_IMAGE_URI = column("image_uri", _STRING, "the image, as in the manifest", example="s3://bucket/in/a/0001.jpg")
_IMAGE_VERSION = column(
    "image_version",
    _STRING,
    "version (ETag) in the manifest",
    null="of an object that is not there",
    example="9b2cf535",
)
_ERROR = (
    column("error_stage", _STRING, "fetch, decode, label, predict or encode", null="if ok", example="decode"),
    column("error_type", _STRING, "kind of error", null="if ok", example="DecodeError"),
    column("error_message", _STRING, "what was wrong", null="if ok", example="the file is truncated"),
)
# Columns of both tables of scores, per image and per run.
_SUMS = (
    column(
        "predicted_pixels",
        _COUNT,
        "predicted as the class (within valid label pixels, if labelled)",
        null="never",
        unit="pixels",
        example=40211,
    ),
    column("target_pixels", _COUNT, "of the class in the labels", null=_NO_LABELS, unit="pixels", example=41870),
    column("intersection", _COUNT, "where both agree", null=_NO_LABELS, unit="pixels", example=39002),
    column("union", _COUNT, "predicted + target - intersection", null=_NO_LABELS, unit="pixels", example=43079),
    column(
        "iou",
        _RATIO,
        "intersection / union",
        null="without labels, or where the union is empty",
        unit="0–1",
        example=0.905,
    ),
    column("dice", _RATIO, "2 intersection / (predicted + target)", null="likewise", unit="0–1", example=0.95),
)
_CLASS = (
    column("class_id", _ID, "class id, the value in the mask", example=3),
    column("class_name", _STRING, "name of the class", example="road"),
)

PREDICTIONS = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        _IMAGE_VERSION,
        column("status", _STRING, "ok or error", example="ok"),
        *_ERROR,
        column("height", _ID, "of image and mask", null=_FAILED, unit="pixels", example=360),
        column("width", _ID, "of image and mask", null=_FAILED, unit="pixels", example=480),
        column("mask", _PICTURE, "palette PNG whose values are class ids", null=_FAILED),
        column("classes", pa.list_(_CLASS_COUNTS), "one entry per class, by id", null=_FAILED),
        column(
            "pixel_accuracy",
            _RATIO,
            "share of valid label pixels predicted right",
            null="without any",
            unit="0–1",
            example=0.91,
        ),
        column(
            "mean_iou",
            _RATIO,
            "mean IoU over the classes with a union in this image",
            null=_NO_LABEL,
            unit="0–1",
            example=0.62,
        ),
        column(
            "mean_confidence", _RATIO, "mean winning probability over pixels", null=_FAILED, unit="0–1", example=0.88
        ),
        column(
            "mean_entropy",
            _RATIO,
            "mean entropy of the class probabilities over pixels",
            null=_FAILED,
            unit="nats",
            example=0.31,
        ),
        column("seconds", _RATIO, "fetch to encode, wall clock", null=_FAILED, unit="s", example=0.42),
    ]
)
_CONFIDENCE = column("confidence", _PICTURE, "grey PNG, 255 times the winning probability", null=_FAILED)

IMAGE_SCORES = pa.schema([_RUN_ID, _IMAGE_URI, *_CLASS, *_SUMS])
CLASS_SCORES = pa.schema(
    [
        _RUN_ID,
        *_CLASS,
        *_SUMS,
        column(
            "precision",
            _RATIO,
            "intersection / predicted",
            null="where nothing was predicted",
            unit="0–1",
            example=0.97,
        ),
        column("recall", _RATIO, "intersection / target", null="where the labels hold none", unit="0–1", example=0.931),
        column(
            "images",
            _COUNT,
            "images whose label holds the class; without labels, whose mask does",
            null="never",
            unit="images",
            example=101,
        ),
    ]
)
CONFUSION = pa.schema(
    [
        _RUN_ID,
        column("target_id", _ID, "class id in the label", example=3),
        column("target_name", _STRING, "its name", example="road"),
        column("predicted_id", _ID, "class id in the mask", example=4),
        column("predicted_name", _STRING, "its name", example="pavement"),
        column(
            "pixels",
            _COUNT,
            "valid label pixels of this pair, all images",
            null=_NO_LABELS,
            unit="pixels",
            example=20713,
        ),
    ]
)
ERRORS = pa.schema([_RUN_ID, _IMAGE_URI, _IMAGE_VERSION, *_ERROR])


def predictions_schema(confidence_maps: bool) -> pa.Schema:
    """Return the schema of `predictions`, with or without the optional column `confidence`."""
    return PREDICTIONS.append(_CONFIDENCE) if confidence_maps else PREDICTIONS
