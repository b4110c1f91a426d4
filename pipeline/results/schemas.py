"""The tables of a run (one source for code and documentation). Undefined is null everywhere, never 0, 1 or -1."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "CLASS_SCORES",
    "CONFUSION",
    "ERRORS",
    "IMAGE_SCORES",
    "PREDICTIONS",
    "TABLE_FORMAT",
    "predictions_schema",
]

TABLE_FORMAT = 1


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_STRING, _ID, _COUNT, _RATIO = pa.string(), pa.int32(), pa.int64(), pa.float64()
# Hugging Face `datasets` shows a struct of this shape as a picture.
_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_CLASS_COUNTS = pa.struct(
    [
        _field("class_id", _ID, "class id, the value in the mask"),
        _field("class_name", _STRING, "name of the class"),
        _field(
            "predicted_pixels", _COUNT, "pixels predicted as the class; only valid label pixels where there is a label"
        ),
        _field("target_pixels", _COUNT, "pixels of the class in the label; null without a label"),
        _field("intersection", _COUNT, "pixels where both agree; null without a label"),
    ]
)
_RUN_ID = _field("run_id", _STRING, "first 16 digits of the run's identity", nullable=False)
_IMAGE_URI = _field("image_uri", _STRING, "the image, as in the manifest", nullable=False)
_IMAGE_VERSION = _field("image_version", _STRING, "version (ETag) in the manifest")
_ERROR = (
    _field("error_stage", _STRING, "fetch, decode, label, predict or encode; null if ok"),
    _field("error_type", _STRING, "kind of error; null if ok"),
    _field("error_message", _STRING, "what was wrong; null if ok"),
)
_SUMS = (
    _field("predicted_pixels", _COUNT, "pixels predicted as the class (within valid label pixels, if labelled)"),
    _field("target_pixels", _COUNT, "pixels of the class in the labels; null without labels"),
    _field("intersection", _COUNT, "pixels where both agree; null without labels"),
    _field("union", _COUNT, "predicted + target - intersection; null without labels"),
    _field("iou", _RATIO, "intersection / union; null without labels or where the union is empty"),
    _field("dice", _RATIO, "2 intersection / (predicted + target); null likewise"),
)
_CLASS = (
    _field("class_id", _ID, "class id, the value in the mask", nullable=False),
    _field("class_name", _STRING, "name of the class", nullable=False),
)

PREDICTIONS = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        _IMAGE_VERSION,
        _field("status", _STRING, "ok or error", nullable=False),
        *_ERROR,
        _field("height", _ID, "of image and mask, pixels; null if error"),
        _field("width", _ID, "of image and mask, pixels; null if error"),
        _field("mask", _PICTURE, "palette PNG whose values are class ids; null if error"),
        _field("classes", pa.list_(_CLASS_COUNTS), "one entry per class, by id; null if error"),
        _field("pixel_accuracy", _RATIO, "share of valid label pixels predicted right; null without any"),
        _field("mean_iou", _RATIO, "mean IoU over the classes with a union in this image; null without labels"),
        _field("mean_confidence", _RATIO, "mean winning probability over pixels; null if error"),
        _field("mean_entropy", _RATIO, "mean entropy of the class probabilities over pixels, nats; null if error"),
        _field("seconds", _RATIO, "fetch to encode, wall clock; null if error"),
    ]
)
_CONFIDENCE = _field("confidence", _PICTURE, "grey PNG, 255 times the winning probability; null if error")

IMAGE_SCORES = pa.schema([_RUN_ID, _IMAGE_URI, *_CLASS, *_SUMS])
CLASS_SCORES = pa.schema(
    [
        _RUN_ID,
        *_CLASS,
        *_SUMS,
        _field("precision", _RATIO, "intersection / predicted; null where nothing was predicted"),
        _field("recall", _RATIO, "intersection / target; null where the labels hold none"),
        _field("images", _COUNT, "images whose label holds the class; without labels, whose mask does"),
    ]
)
CONFUSION = pa.schema(
    [
        _RUN_ID,
        _field("target_id", _ID, "class id in the label", nullable=False),
        _field("target_name", _STRING, "its name", nullable=False),
        _field("predicted_id", _ID, "class id in the mask", nullable=False),
        _field("predicted_name", _STRING, "its name", nullable=False),
        _field("pixels", _COUNT, "valid label pixels of this pair, all images; null without labels"),
    ]
)
ERRORS = pa.schema([_RUN_ID, _IMAGE_URI, _IMAGE_VERSION, *_ERROR])


def predictions_schema(confidence_maps: bool) -> pa.Schema:
    """The schema of `predictions`, with the optional confidence maps or without."""
    return PREDICTIONS.append(_CONFIDENCE) if confidence_maps else PREDICTIONS
