"""Tests of a whole run's intervals: equal to a plain loop over its images, with one file in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.results.statistics.bootstrap import RESAMPLES, iou_intervals
from pipeline.results.tables import Run
from tests.results.reads import watch_reads
from tests.results.run_builders import CLASSES, scene, write_run


def by_hand(images: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU of each class (R, C) and its mean (R,) in resamples of images, counted from the pixels."""
    weights = np.random.default_rng(0).poisson(1.0, (RESAMPLES, len(images)))
    inter = np.zeros((RESAMPLES, len(CLASSES)))
    union = np.zeros((RESAMPLES, len(CLASSES)))
    for number, index in enumerate(images):
        _, label, mask = scene(index)
        for each in range(len(CLASSES)):
            valid = label != 255
            inter[:, each] += weights[:, number] * ((label == each) & (mask == each) & valid).sum()
            union[:, each] += weights[:, number] * (((label == each) | (mask == each)) & valid).sum()
    with np.errstate(invalid="ignore"):
        ious = inter / union
        return ious, np.nansum(ious, axis=1) / (~np.isnan(ious)).sum(axis=1)


def test_intervals_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, 9, failed=(2, 5)))
    found = iou_intervals(run)
    classes, mean = by_hand([0, 1, 3, 4, 6, 7, 8])
    for each, expected in zip(found.classes, classes.T, strict=True):
        assert each == pytest.approx(np.nanquantile(expected, [0.025, 0.975]))
    assert found.mean == pytest.approx(np.nanquantile(mean, [0.025, 0.975]))
    assert found.mean[0] < run.success["mean_iou"] < found.mean[1]


@pytest.mark.parametrize("options", [{"labels": False}, {"images": 0}, {"failed": tuple(range(7))}])
def test_without_labelled_images_there_is_no_interval(tmp_path: Path, options: dict[str, Any]) -> None:
    found = iou_intervals(Run(write_run(tmp_path, **options)))
    assert found.mean is None and found.classes == (None,) * len(CLASSES)


def test_images_without_a_label_change_nothing(tmp_path: Path) -> None:
    some = iou_intervals(Run(write_run(tmp_path, 12, labels="some", failed=())))
    classes, _ = by_hand([0, 2, 4, 6, 8, 10])
    assert some.classes[0] == pytest.approx(np.nanquantile(classes[:, 0], [0.025, 0.975]))


def test_one_file_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(write_run(tmp_path, 30))
    reads = watch_reads(monkeypatch)
    iou_intervals(run)
    # The loop still refers to the current file while it asks for the next one.
    assert reads.files == [("intersection", "union")] * 10 and max(reads.held) <= 1
