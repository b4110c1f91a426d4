"""The tables of a comparison. A is the run that is named first; undefined is null everywhere, never 0."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["AGREEMENT", "CHANGED_IMAGES", "COMPARISON", "ONLY_ONE"]


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_STRING, _ID, _COUNT, _RATIO = pa.string(), pa.int32(), pa.int64(), pa.float64()
_RUNS = (
    _field("run_id_a", _STRING, "run_id of A", nullable=False),
    _field("run_id_b", _STRING, "run_id of B", nullable=False),
)
_IMAGE = (
    _field("image_uri", _STRING, "the image, as in both manifests", nullable=False),
    _field("image_version", _STRING, "version (ETag) in both manifests"),
)

COMPARISON = pa.schema(
    [
        *_RUNS,
        _field("class_id", _ID, "class id, the value in the masks; null in the row of the mean"),
        _field("class_name", _STRING, "name of the class; mean in the row of the mean", nullable=False),
        _field("iou_a", _RATIO, "IoU of A over the compared images with a label; null where undefined"),
        _field("iou_b", _RATIO, "the same of B"),
        _field("difference", _RATIO, "iou_b - iou_a; null where one is undefined"),
        _field("difference_low", _RATIO, "lower end of its 95% interval; null where too few images have the class"),
        _field("difference_high", _RATIO, "upper end, null likewise"),
        _field("verdict", _STRING, "higher or lower (B, where the interval excludes 0), else no difference shown"),
        _field("images", _COUNT, "compared images whose label holds the class; of the mean: that have a label"),
        _field("pixels_a", _COUNT, "pixels of the class in the masks of A, all compared images"),
        _field("pixels_b", _COUNT, "the same of B"),
        _field("pixels_both", _COUNT, "pixels that are of the class in both masks"),
        _field("agreement", _RATIO, "pixels_both / pixels in either; null where in neither; of the mean: its mean"),
    ]
)
AGREEMENT = pa.schema(
    [
        *_RUNS,
        _field("class_id_a", _ID, "class id in the mask of A", nullable=False),
        _field("class_name_a", _STRING, "its name", nullable=False),
        _field("class_id_b", _ID, "class id in the mask of B", nullable=False),
        _field("class_name_b", _STRING, "its name", nullable=False),
        _field("pixels", _COUNT, "pixels of this pair, all pixels of all compared images", nullable=False),
    ]
)
CHANGED_IMAGES = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        _field("pixels", _COUNT, "pixels of the image", nullable=False),
        _field("changed_pixels", _COUNT, "pixels of another class in B than in A", nullable=False),
        _field("changed_share", _RATIO, "changed_pixels / pixels", nullable=False),
        _field("mean_iou_a", _RATIO, "mean IoU of the image in A; null unless A and B have the same label of it"),
        _field("mean_iou_b", _RATIO, "the same of B"),
        _field("mean_iou_difference", _RATIO, "mean_iou_b - mean_iou_a; null likewise"),
    ]
)
ONLY_ONE = pa.schema(
    [
        *_RUNS,
        *_IMAGE,
        _field("segmented_in", _STRING, "a or b: the run that has a mask", nullable=False),
        _field("error_stage", _STRING, "of the other run: fetch, decode, label, predict or encode"),
        _field("error_type", _STRING, "of the other run: kind of error"),
        _field("error_message", _STRING, "of the other run: what was wrong"),
    ]
)
