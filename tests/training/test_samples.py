"""Crops and their labels: alignment with the network's cells, reflection, void outside, cached maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.front_end import HEAD_CELLS, FrontEnd, FrontEndWidths
from model.geometry import MARGIN
from pipeline.data.storage import Storage
from pipeline.training.feature_cache import FeatureCache
from pipeline.training.samples import feature_sample, image_sample
from pipeline.training.sampling import Draw

MEAN = (10.0, 20.0, 30.0)
WIDTHS = FrontEndWidths((2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4), 5, 5)


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 5, (height, width), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60), st.integers(2, 60), st.integers(1, 10), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans()
)
def test_against_the_reference_layers_steps(
    height: int, width: int, cells: int, row: float, column: float, mirror: bool
) -> None:
    """Extend by 186, extend to the crop's size, crop, mirror, minus mean, slice the label: one step at a time."""
    image, label = scene(height, width)
    crop = 8 * cells + 372
    sample = image_sample(
        image, label, Draw(0, row, column, mirror), cells=cells, mean_bgr=MEAN, ignore_label=255, uri="u"
    )
    below, right = max(MARGIN, crop - MARGIN - height), max(MARGIN, crop - MARGIN - width)
    wide = np.pad(image, ((MARGIN, below), (MARGIN, right), (0, 0)), mode="reflect").astype(np.float32)
    marked = np.pad(label, ((MARGIN, below), (MARGIN, right)), constant_values=255)
    top = int(row * (max(0, height + 372 - crop) + 1))
    left = int(column * (max(0, width + 372 - crop) + 1))
    pixels, target = wide[top : top + crop, left : left + crop], marked[top : top + crop, left : left + crop]
    if mirror:
        pixels, target = pixels[:, ::-1], target[:, ::-1]
    expected = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array(MEAN, np.float32)[:, None, None]
    np.testing.assert_array_equal(sample.inputs.numpy(), expected)
    np.testing.assert_array_equal(sample.target.numpy(), target[186 : 186 + 8 * cells : 8, 186 : 186 + 8 * cells : 8])


def test_targets_lie_under_the_cells_of_the_front_end() -> None:
    front_end = FrontEnd(2, WIDTHS)
    image, label = scene(80, 90)
    sample = image_sample(image, label, Draw(0, 0.3, 0.7, False), cells=6, mean_bgr=MEAN, ignore_label=255)
    assert front_end(sample.inputs[None]).shape[2:] == sample.target.shape


@pytest.mark.parametrize("mirror", [False, True])
def test_cached_maps_equal_those_of_the_crop(mirror: bool) -> None:
    torch.manual_seed(0)
    front_end = FrontEnd(3, WIDTHS).eval()
    image, label = scene(61, 77)
    maps = FeatureCache(Storage(), "memory://x", front_end, MEAN).compute(image[:, ::-1] if mirror else image)
    cells = 4
    # Rows and columns of the mirrored image at which a crop of whole cells can begin: 8 - 4 and 10 - 4 choices.
    for place in ((0.0, 0.0), (0.5, 0.4), (0.99, 0.99)):
        drawn = Draw(0, *place, mirror)
        sample = feature_sample(maps, label, drawn, cells=cells)
        assert sample.target.shape == (cells, cells)
        assert sample.inputs.shape[1:] == (cells + HEAD_CELLS, cells + HEAD_CELLS)
        top, left = int(place[0] * 5) * 8, int(place[1] * 7) * 8
        shown = image[:, ::-1] if mirror else image
        wide = np.pad(shown, ((MARGIN, 300), (MARGIN, 300), (0, 0)), mode="reflect")
        crop = np.ascontiguousarray(wide[top : top + 8 * cells + 372, left : left + 8 * cells + 372, ::-1])
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() - torch.tensor(MEAN).view(3, 1, 1)
        with torch.inference_mode():
            direct = front_end.features(pixels[None])[0]
        torch.testing.assert_close(sample.inputs, direct, rtol=2e-3, atol=0.05)
        turned = label[:, ::-1] if mirror else label
        np.testing.assert_array_equal(
            sample.target.numpy(), turned[top : top + 8 * cells : 8, left : left + 8 * cells : 8]
        )


def test_maps_are_keyed_by_weights_mean_and_version(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    front_end = FrontEnd(3, WIDTHS)
    roots = [FeatureCache(Storage(), str(tmp_path), front_end, MEAN)._root]
    roots.append(FeatureCache(Storage(), str(tmp_path), front_end, (1.0, 2.0, 3.0))._root)
    with torch.no_grad():
        front_end.conv4_2.bias[0] += 1
    roots.append(FeatureCache(Storage(), str(tmp_path), front_end, MEAN)._root)
    with torch.no_grad():
        front_end.fc6.bias[0] += 1
    assert FeatureCache(Storage(), str(tmp_path), front_end, MEAN)._root == roots[2], "fc6 has no part in the maps"
    assert len(set(roots)) == 3
    assert replace(Draw(0, 0.0, 0.0, False), mirror=True).mirror
