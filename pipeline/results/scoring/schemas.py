"""The tables below `scores/`. Undefined is null everywhere, never 0; pixels with the ignore label count nowhere."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["CLASSES", "IMAGES", "IMAGE_CLASSES", "RELIABILITY", "RUN"]


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_STRING, _ID, _COUNT, _RATIO = pa.string(), pa.int32(), pa.int64(), pa.float64()
_RUN_ID = _field("run_id", _STRING, "run_id of the run", nullable=False)
_IMAGE_URI = _field("image_uri", _STRING, "the image, as in the manifest", nullable=False)
_CLASS = (
    _field("class_id", _ID, "class id, the value in the mask", nullable=False),
    _field("class_name", _STRING, "name of the class", nullable=False),
)
_CLASS_SCORES = (
    _field("iou", _RATIO, "intersection / union; null where the class is neither in label nor mask"),
    _field("dice", _RATIO, "2 intersection / (predicted + target); null likewise"),
    _field("precision", _RATIO, "intersection / predicted; null where nothing was predicted"),
    _field("recall", _RATIO, "intersection / target, the accuracy of the class; null where the label holds none"),
    _field("boundary_iou", _RATIO, "IoU of the pixels near an outline (2% of the diagonal); null without any"),
)
_ERROR = _field(
    "expected_calibration_error", _RATIO, "mean |confidence − accuracy| over 15 bins; null without confidence maps"
)

IMAGES = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        _field("pixels", _COUNT, "valid label pixels", nullable=False),
        _field("mean_iou", _RATIO, "mean IoU over the classes that have one"),
        _field("mean_dice", _RATIO, "mean Dice over the classes that have one"),
        _field("pixel_accuracy", _RATIO, "share of the pixels predicted right"),
        _field("mean_accuracy", _RATIO, "mean recall over the classes of the label"),
        _field("frequency_weighted_iou", _RATIO, "IoU of the classes of the label, weighted by their pixels"),
        _field("mean_boundary_iou", _RATIO, "mean boundary IoU over the classes that have one"),
        _field("boundary_width", _ID, "pixels on each side of an outline that boundary IoU counts", nullable=False),
        _ERROR,
    ]
)
IMAGE_CLASSES = pa.schema(
    [
        _RUN_ID,
        _IMAGE_URI,
        *_CLASS,
        *_CLASS_SCORES,
        _field("boundary_intersection", _COUNT, "pixels near an outline in label and mask, of the class in both"),
        _field("boundary_union", _COUNT, "pixels near an outline of the class in label or mask"),
    ]
)
RUN = pa.schema(
    [
        _RUN_ID,
        _field("score", _STRING, "name of the score", nullable=False),
        _field("value", _RATIO, "from the sums over all scored images, 0–1; null where undefined"),
        _field("low", _RATIO, "lower end of its 95% interval, by a bootstrap over images; null with too few"),
        _field("high", _RATIO, "upper end; null likewise"),
        _field("images", _COUNT, "scored images", nullable=False),
    ]
)
CLASSES = pa.schema(
    [
        _RUN_ID,
        *_CLASS,
        _field("score", _STRING, "name of the score", nullable=False),
        _field("value", _RATIO, "from the sums over all scored images, 0–1; null where undefined"),
        _field("low", _RATIO, "lower end of its 95% interval; null where too few images hold the class"),
        _field("high", _RATIO, "upper end; null likewise"),
    ]
)
RELIABILITY = pa.schema(
    [
        _RUN_ID,
        _field("class_id", _ID, "predicted class; null in the rows of all classes together"),
        _field("class_name", _STRING, "its name; null likewise"),
        _field("confidence_low", _RATIO, "lower end of the bin", nullable=False),
        _field("confidence_high", _RATIO, "upper end of the bin; only the last one holds it", nullable=False),
        _field("pixels", _COUNT, "valid label pixels of these confidences", nullable=False),
        _field("mean_confidence", _RATIO, "their mean confidence; null without pixels"),
        _field("accuracy", _RATIO, "share of them predicted right; null without pixels"),
    ]
)
