"""Tests of small pictures: their content and their largest size."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.results.report.contact_sheet import Panel, paint_sheet
from pipeline.results.report.page import WRONG, data_uri, error_map, shrink


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_errors_are_vermilion_what_is_right_pale_and_what_is_ignored_dark() -> None:
    mask = np.array([[1, 1, 1]], np.uint8)
    label = np.array([[1, 0, 255]], np.uint8)
    right, wrong, ignored = error_map(np.full((1, 3, 3), 100, np.uint8), mask, label, 255)[0].astype(int)
    assert right.min() == right.max() > 180 and ignored.max() < 50
    assert abs(wrong - WRONG).max() < 25
    # The marks must be visible without colors as well.
    assert right.mean() - wrong.mean() > 60 and wrong.mean() - ignored.mean() > 60


@pytest.mark.parametrize("size", [(100, 10), (30, 20), (10, 100)])
def test_pictures_of_a_sheet_keep_their_aspect_ratio(size: tuple[int, int]) -> None:
    panel = Panel("", None, np.zeros(size, np.uint8), None)
    sheet = np.asarray(paint_sheet([panel], ["only"], np.array([[9, 8, 7]], np.uint8), 255))
    # The legend above the pictures has the same color.
    rows, columns = np.nonzero((sheet[110:] == (9, 8, 7)).all(axis=2))
    assert np.ptp(rows) + 1 == pytest.approx((np.ptp(columns) + 1) * size[0] / size[1], abs=1)


@pytest.mark.parametrize("size", [(2000, 3001), (1680, 841), (30, 40), (1, 5000)])
def test_huge_images_shrink_alike(size: tuple[int, int]) -> None:
    ids = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size).astype(np.uint8)
    image, mask, label = shrink(np.repeat(ids[:, :, None], 3, axis=2), ids, ids)
    assert image is not None and label is not None and image.shape[:2] == mask.shape == label.shape
    assert max(mask.shape) < 1300 and set(np.unique(mask)) <= set(np.unique(ids))
    assert max(size) > 1300 or mask.shape == size


def test_even_noise_becomes_a_small_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 600, 3), dtype=np.uint8)
    uri = data_uri(noise)
    assert opened(uri).size == (315, 420) and len(uri) < 60_000
    assert opened(data_uri(noise[:20, :10])).size == (10, 20)
