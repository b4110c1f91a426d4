"""Schemas of the tables of a run, the single source for code and documentation.

An undefined value is null in every table, never 0, 1 or -1.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "CLASS_SCORES",
    "CONFUSION",
    "ERRORS",
    "IMAGE_SCORES",
    "PREDICTIONS",
    "TABLE_FORMAT",
    "column",
    "predictions_schema",
]


def column(
    name: str,
    kind: pa.DataType,
    description: str,
    *,
    null: str | None = None,
    unit: str | None = None,
    example: object = None,
) -> pa.Field:
    """Return a pyarrow field whose metadata documents the column.

    Args:
        name: Column name.
        kind: Arrow data type.
        description: Text that says what the column holds.
        null: Condition under which a value is null, in words. None makes the field non-nullable.
        unit: Unit of the numbers; None for a column without a unit.
        example: Example value, stored as text; None for no example.

    Returns:
        Field with the metadata keys `description`, `null`, `unit` and `example`, each only if it is given.
    """
    said = {
        "description": description,
        "null": null,
        "unit": unit,
        "example": None if example is None else str(example),
    }
    # Field metadata holds text only, so keys without a value are left out.
    metadata = {key: value for key, value in said.items() if value is not None}
    return pa.field(name, kind, nullable=null is not None, metadata=metadata)


# Version of the tables' format, recorded in _SUCCESS.json; a reader refuses any other.
TABLE_FORMAT = 1

_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
# Hugging Face `datasets` displays a struct with these fields as an image.
_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
# Texts for the conditions under which a column is null.
_FAILED = "if status is error"
_NO_LABEL = "if the image has no label"
_NO_LABELS = "if there are no labels"
_CLASS_COUNTS = pa.struct(
    [
        column("class_id", _ID, "class id: the pixel value in the mask", null="never", example=3),
        column("class_name", _STRING, "class name", null="never", example="road"),
        column(
            "predicted_pixels",
            _COUNT,
            "number of pixels predicted as the class; in a labeled image, of valid label pixels only",
            null="never",
            unit="pixels",
            example=40211,
        ),
        column(
            "target_pixels",
            _COUNT,
            "number of pixels with the class in the label",
            null=_NO_LABEL,
            unit="pixels",
            example=41870,
        ),
        column(
            "intersection",
            _COUNT,
            "number of pixels with the class in both mask and label",
            null=_NO_LABEL,
            unit="pixels",
            example=39002,
        ),
    ]
)
_RUN_ID = column(
    "run_id",
    _STRING,
    "identifier of the run: first 16 digits of a SHA-256 over network, settings and inputs",
    example="5ae0c1b2d3f40718",
)
_IMAGE_URI = column("image_uri", _STRING, "URI of the image, as in the manifest", example="s3://bucket/in/a/0001.jpg")
_IMAGE_VERSION = column(
    "image_version",
    _STRING,
    "version (ETag) of the image file, as in the manifest",
    null="if the file is missing or its storage states no version",
    example="9b2cf535",
)
_ERROR = (
    column(
        "error_stage",
        _STRING,
        "stage that failed: fetch, decode, label or predict",
        null="if status is ok",
        example="decode",
    ),
    column("error_type", _STRING, "kind of error", null="if status is ok", example="DecodeError"),
    column("error_message", _STRING, "reason for the error", null="if status is ok", example="the file is truncated"),
)
# Columns of both tables of scores, per image and per run.
_SUMS = (
    column(
        "predicted_pixels",
        _COUNT,
        "number of pixels predicted as the class; in labeled images, of valid label pixels only",
        null="never",
        unit="pixels",
        example=40211,
    ),
    column(
        "target_pixels",
        _COUNT,
        "number of pixels with the class in the labels",
        null=_NO_LABELS,
        unit="pixels",
        example=41870,
    ),
    column(
        "intersection",
        _COUNT,
        "number of pixels with the class in both mask and label",
        null=_NO_LABELS,
        unit="pixels",
        example=39002,
    ),
    column(
        "union",
        _COUNT,
        "predicted_pixels + target_pixels - intersection",
        null=_NO_LABELS,
        unit="pixels",
        example=43079,
    ),
    column(
        "iou",
        _RATIO,
        "intersection over union: intersection / union",
        null="if there are no labels, or union is 0",
        unit="0–1",
        example=0.905,
    ),
    column(
        "dice",
        _RATIO,
        "Dice score: 2 intersection / (predicted_pixels + target_pixels)",
        null="if there are no labels, or union is 0",
        unit="0–1",
        example=0.95,
    ),
)
_CLASS = (
    column("class_id", _ID, "class id: the pixel value in the mask", example=3),
    column("class_name", _STRING, "class name", example="road"),
)

PREDICTIONS = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        _IMAGE_VERSION,
        column("status", _STRING, "outcome: ok or error", example="ok"),
        *_ERROR,
        column("height", _ID, "height of image and mask", null=_FAILED, unit="pixels", example=360),
        column("width", _ID, "width of image and mask", null=_FAILED, unit="pixels", example=480),
        column("mask", _PICTURE, "predicted mask: palette PNG whose pixel values are class ids", null=_FAILED),
        column(
            "classes",
            pa.list_(_CLASS_COUNTS),
            "pixel counts: one entry per class, in the order of class ids",
            null=_FAILED,
        ),
        column(
            "pixel_accuracy",
            _RATIO,
            "fraction of valid label pixels with the correct class",
            null="if there is no valid label pixel",
            unit="0–1",
            example=0.91,
        ),
        column(
            "mean_iou",
            _RATIO,
            "mean IoU over the classes that occur in the mask or the label",
            null="if there is no valid label pixel",
            unit="0–1",
            example=0.62,
        ),
        column(
            "mean_confidence",
            _RATIO,
            "mean confidence over all pixels: probability of the predicted class",
            null=_FAILED,
            unit="0–1",
            example=0.88,
        ),
        column(
            "mean_entropy",
            _RATIO,
            "mean entropy of the class probabilities over all pixels; 0 is certain",
            null=_FAILED,
            unit="nats",
            example=0.31,
        ),
        column(
            "seconds",
            _RATIO,
            "wall-clock time to load, predict and encode the image",
            null=_FAILED,
            unit="s",
            example=0.42,
        ),
    ]
)
_CONFIDENCE = column(
    "confidence", _PICTURE, "confidence map: gray PNG, 255 × probability of the predicted class", null=_FAILED
)

IMAGE_SCORES = pa.schema([_RUN_ID, _IMAGE_URI, *_CLASS, *_SUMS])
CLASS_SCORES = pa.schema(
    [
        _RUN_ID,
        *_CLASS,
        *_SUMS,
        column(
            "precision",
            _RATIO,
            "intersection / predicted_pixels",
            null="if there are no labels, or predicted_pixels is 0",
            unit="0–1",
            example=0.97,
        ),
        column(
            "recall",
            _RATIO,
            "intersection / target_pixels",
            null="if there are no labels, or target_pixels is 0",
            unit="0–1",
            example=0.931,
        ),
        column(
            "images",
            _COUNT,
            "number of images whose label contains the class; without labels, whose mask contains it",
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
        column("target_name", _STRING, "class name in the label", example="road"),
        column("predicted_id", _ID, "class id in the mask", example=4),
        column("predicted_name", _STRING, "class name in the mask", example="pavement"),
        column(
            "pixels",
            _COUNT,
            "number of valid label pixels with this pair of classes, over all images",
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
