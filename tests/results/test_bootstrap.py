"""Tests of intervals, against drawing images with replacement and known properties of the mean."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.results.schema.schemas import IMAGE_SCORES
from pipeline.results.statistics.bootstrap import class_ious, interval, mean_ious, resampled_sums, score_counts


def counts(images: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    """Return intersections and unions (N, 2, C) of images of different quality."""
    generator = np.random.default_rng(seed)
    union = generator.integers(100, 20_000, (images, classes))
    return np.stack([union * generator.beta(5, 2, (images, 1)), union], axis=1).astype(float)


def by_drawing(parts: np.ndarray, resamples: int) -> np.ndarray:
    """Compute sums over N images drawn with replacement, as textbooks define the bootstrap."""
    generator = np.random.default_rng(7)
    return np.stack([parts[generator.integers(0, len(parts), len(parts))].sum(axis=0) for _ in range(resamples)])


def test_intervals_are_those_of_drawing_with_replacement() -> None:
    images = counts(200)
    ours = mean_ious(resampled_sums([images], 4000))
    theirs = mean_ious(by_drawing(images, 4000))
    width = np.subtract(*reversed(interval(theirs) or (0, 0)))
    assert interval(ours) == pytest.approx(interval(theirs), abs=0.08 * width)
    for class_id in range(4):
        expected = interval(class_ious(by_drawing(images, 4000))[:, class_id]) or (0, 0)
        width = expected[1] - expected[0]
        assert interval(class_ious(resampled_sums([images], 4000))[:, class_id]) == pytest.approx(
            expected, abs=0.08 * width
        )


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    everything = counts(100_000, seed=1)
    truth = mean_ious(everything.sum(axis=0)[None])[0]
    hits = 0
    for seed in range(200):
        chosen = np.random.default_rng(seed).integers(0, len(everything), 150)
        low, high = interval(mean_ious(resampled_sums([everything[chosen]], 400, seed))) or (1, 0)
        hits += low <= truth <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_files_do_not_matter_much() -> None:
    images = counts(9000)
    whole = resampled_sums([images], 100, seed=3)
    np.testing.assert_array_equal(whole, resampled_sums([images], 100, seed=3))
    assert not np.array_equal(whole, resampled_sums([images], 100, seed=4))
    in_files = resampled_sums(np.split(images, 30), 100, seed=3)
    np.testing.assert_allclose(in_files.mean(axis=0), whole.mean(axis=0), rtol=0.01)


def test_a_class_of_too_few_images_has_no_interval() -> None:
    images = counts(100)
    images[1:, :, 2] = 0
    ious = class_ious(resampled_sums([images], 500))
    assert interval(ious[:, 2]) is None
    assert interval(ious[:, 1]) is not None
    assert interval(mean_ious(resampled_sums([images], 500))) is not None


def test_only_labelled_images_count() -> None:
    rows = [
        {"run_id": "r", "image_uri": uri, "class_id": class_id, "class_name": "c", "predicted_pixels": 9}
        | ({"intersection": 3, "union": 9} if uri == "b" else {})
        for uri in "abc"
        for class_id in range(2)
    ]
    found = score_counts(pa.Table.from_pylist(rows, schema=IMAGE_SCORES), 2)
    np.testing.assert_array_equal(found, [[[3, 3], [9, 9]]])
