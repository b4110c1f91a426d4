"""Schemas of the tables below `scores/`. Undefined is always null, never 0; pixels of the ignore label never count."""

from __future__ import annotations

import pyarrow as pa

from pipeline.results.schema.schemas import column

__all__ = ["CLASSES", "IMAGES", "IMAGE_CLASSES", "RELIABILITY", "RUN"]

# Columns that several tables share.
_STRING = pa.string()
_ID = pa.int32()
_COUNT = pa.int64()
_RATIO = pa.float64()
_SHARE = {"unit": "0–1"}
# Texts for the conditions under which a column is null.
_NO_PIXEL = "if there is no valid label pixel"
_NO_INTERVAL = "if too few images define the score; always for expected_calibration_error"
_RUN_ID = column("run_id", _STRING, "identifier of the run", example="5ae0c1b2d3f40718")
_IMAGE_URI = column("image_uri", _STRING, "URI of the image, as in the manifest", example="s3://bucket/in/a/0001.jpg")
_CLASS = (
    column("class_id", _ID, "class id: the pixel value in the mask", example=3),
    column("class_name", _STRING, "class name", example="road"),
)
_CLASS_SCORES = (
    column(
        "iou",
        _RATIO,
        "intersection over union of mask and label",
        null="if the class is in neither label nor mask",
        **_SHARE,
    ),
    column("dice", _RATIO, "Dice score of mask and label", null="if the class is in neither label nor mask", **_SHARE),
    column(
        "precision",
        _RATIO,
        "fraction of the predicted pixels that are correct",
        null="if the class is not in the mask",
        **_SHARE,
    ),
    column(
        "recall",
        _RATIO,
        "fraction of the label pixels that are found; also called class accuracy",
        null="if the class is not in the label",
        **_SHARE,
    ),
    column(
        "boundary_iou",
        _RATIO,
        "IoU of the pixels near an outline (within 2% of the image diagonal)",
        null="if the class has no such pixel",
        **_SHARE,
    ),
)
_VALUE = column(
    "value",
    _RATIO,
    "score over all scored images, from summed pixel counts",
    null="if undefined",
    example=0.573,
    **_SHARE,
)
_LOW = column("low", _RATIO, "lower end of the 95% interval, from a bootstrap over images", null=_NO_INTERVAL, **_SHARE)
_HIGH = column("high", _RATIO, "upper end of the 95% interval", null=_NO_INTERVAL, **_SHARE)
_SCORE = column("score", _STRING, "name of the score", example="boundary_iou")

# One row per scored image.
IMAGES = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        column("pixels", _COUNT, "number of valid label pixels", unit="pixels", example=171322),
        column("mean_iou", _RATIO, "mean IoU over the classes whose IoU is defined", null=_NO_PIXEL, **_SHARE),
        column(
            "mean_dice", _RATIO, "mean Dice score over the classes whose score is defined", null=_NO_PIXEL, **_SHARE
        ),
        column(
            "pixel_accuracy", _RATIO, "fraction of valid label pixels with the correct class", null=_NO_PIXEL, **_SHARE
        ),
        column("mean_accuracy", _RATIO, "mean recall over the classes in the label", null=_NO_PIXEL, **_SHARE),
        column(
            "frequency_weighted_iou",
            _RATIO,
            "mean IoU over the classes in the label, weighted by their label pixels",
            null=_NO_PIXEL,
            **_SHARE,
        ),
        column(
            "mean_boundary_iou",
            _RATIO,
            "mean boundary IoU over the classes whose score is defined",
            null=_NO_PIXEL,
            **_SHARE,
        ),
        column(
            "boundary_width",
            _ID,
            "width of the band that boundary IoU counts on each side of an outline",
            unit="pixels",
            example=12,
        ),
        column(
            "expected_calibration_error",
            _RATIO,
            "mean |confidence − accuracy| over 15 bins of confidence, weighted by pixels",
            null="without confidence maps, or if there is no valid label pixel",
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
            "boundary_intersection",
            _COUNT,
            "number of pixels near an outline in both label and mask, with the class in both",
            unit="pixels",
        ),
        column(
            "boundary_union", _COUNT, "number of pixels near an outline of the class in label or mask", unit="pixels"
        ),
    ]
)
# One row per score of the whole run.
RUN = pa.schema(
    [
        _RUN_ID,
        _SCORE,
        _VALUE,
        _LOW,
        _HIGH,
        column("images", _COUNT, "number of scored images", unit="images", example=101),
    ]
)
# One row per class and score, over all scored images.
CLASSES = pa.schema([_RUN_ID, *_CLASS, _SCORE, _VALUE, _LOW, _HIGH])
# One row per bin, of all classes together and of each class.
RELIABILITY = pa.schema(
    [
        _RUN_ID,
        column("class_id", _ID, "predicted class id", null="in the rows over all classes"),
        column("class_name", _STRING, "name of the predicted class", null="in the rows over all classes"),
        column("confidence_low", _RATIO, "lower end of the bin, included", example=0.8, **_SHARE),
        column(
            "confidence_high", _RATIO, "upper end of the bin, excluded except in the last bin", example=0.8667, **_SHARE
        ),
        column("pixels", _COUNT, "number of valid label pixels in the bin", unit="pixels", example=99120),
        column("mean_confidence", _RATIO, "mean confidence of these pixels", null="if pixels is 0", **_SHARE),
        column("accuracy", _RATIO, "fraction of these pixels with the correct class", null="if pixels is 0", **_SHARE),
    ]
)
