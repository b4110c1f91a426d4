"""Tests of crops and their labels: alignment with the network's cells, reflection, void outside, cached maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.networks.dilated.front_end import DilatedFrontEnd
from model.networks.dilated.geometry import MARGIN
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.prediction.upsampling import Upsampling, deconvolve
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, IncompleteRun
from pipeline.training.feature_maps import MapCache
from pipeline.training.recipes.schema import StageInput
from pipeline.training.samples.crops import SampleParams, SampleRule, image_sample, map_sample
from pipeline.training.samples.dataset import LabelledImage
from pipeline.training.samples.samplers import sample_rule
from tests.training.support import small_recipe

MEAN = (10.0, 20.0, 30.0)
WIDTHS = FrontEndWidths((2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4), 5, 5)


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 5, (height, width), dtype=np.uint8)


@settings(max_examples=60)
@given(
    st.integers(2, 60), st.integers(2, 60), st.integers(1, 10), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans()
)
def test_against_the_reference_layers_steps(
    height: int, width: int, cells: int, row: float, column: float, mirror: bool
) -> None:
    """Each step is explicit: extend by 186, extend to the crop's size, crop, mirror, minus mean, slice the label."""
    image, label = scene(height, width)
    crop = 8 * cells + 372
    sample = image_sample(
        image, label, SampleParams(0, row, column, mirror), SampleRule(8 * cells + 2 * MARGIN, MEAN), "u"
    )
    below = max(MARGIN, crop - MARGIN - height)
    right = max(MARGIN, crop - MARGIN - width)
    wide = np.pad(image, ((MARGIN, below), (MARGIN, right), (0, 0)), mode="reflect").astype(np.float32)
    marked = np.pad(label, ((MARGIN, below), (MARGIN, right)), constant_values=255)
    top = int(row * (max(0, height + 372 - crop) + 1))
    left = int(column * (max(0, width + 372 - crop) + 1))
    pixels = wide[top : top + crop, left : left + crop]
    target = marked[top : top + crop, left : left + crop]
    if mirror:
        pixels = pixels[:, ::-1]
        target = target[:, ::-1]
    expected = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array(MEAN, np.float32)[:, None, None]
    np.testing.assert_array_equal(sample.inputs.numpy(), expected)
    np.testing.assert_array_equal(sample.target.numpy(), target[186 : 186 + 8 * cells : 8, 186 : 186 + 8 * cells : 8])


def test_targets_lie_under_the_cells_of_the_front_end() -> None:
    front_end = DilatedFrontEnd(2, WIDTHS)
    image, label = scene(80, 90)
    sample = image_sample(image, label, SampleParams(0, 0.3, 0.7, False), SampleRule(6 * 8 + 2 * MARGIN, MEAN))
    assert front_end(sample.inputs[None]).shape[2:] == sample.target.shape


def test_a_whole_image_has_the_cells_of_all_its_pixels() -> None:
    image, label = scene(61, 77)
    sample = image_sample(image, label, SampleParams(0, 0.9, 0.9, False), SampleRule(None, MEAN))
    np.testing.assert_array_equal(sample.target.numpy(), label[::8, ::8])
    assert DilatedFrontEnd(2, WIDTHS)(sample.inputs[None]).shape[2:] == (8, 10)


def test_cells_before_the_image_have_no_label_under_them() -> None:
    recipe = small_recipe()
    spec = replace(recipe.spec(), upsampling=Upsampling(8, -4.0, "probabilities", "clamp"))
    with pytest.raises(ConfigError, match="no pixel lies under the first cell of Upsampling"):
        sample_rule(recipe, recipe.stages[0], spec)


def test_a_deconvolution_learns_from_every_pixel() -> None:
    image, label = scene(61, 77)
    sample = image_sample(image, label, SampleParams(0, 0.0, 0.0, True), SampleRule(None, MEAN, target_stride=1))
    padded = np.full((64, 80), 255, np.uint8)
    padded[:61, :77] = label
    np.testing.assert_array_equal(sample.target.numpy(), padded[:, ::-1])
    with torch.no_grad():
        assert deconvolve(DilatedFrontEnd(2, WIDTHS)(sample.inputs[None])).shape[2:] == sample.target.shape
    cut = map_sample(
        torch.zeros(2, 8, 10),
        label,
        SampleParams(0, 0.9, 0.0, False),
        SampleRule(32 + 2 * MARGIN, MEAN, target_stride=1),
        0,
    )
    np.testing.assert_array_equal(cut.target.numpy(), padded[32:64, :32])


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.5), (0.999999, 2.0)])
def test_a_random_scale_resizes_image_and_label_alike(share: float, factor: float) -> None:
    """Blocks of one color and class keep both at their centers, and nearest-neighbor labels contain no new class."""
    ids = np.random.default_rng(1).integers(0, 5, (4, 5), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    image = np.repeat(ids[:, :, None] * 50, 3, axis=2)
    rule = SampleRule(None, (0.0, 0.0, 0.0), target_stride=1, scale=(0.5, 2.0))
    sample = image_sample(image, ids, SampleParams(0, 0.0, 0.0, False, scale=share), rule)
    assert sample.target.shape == (round(64 * factor), round(80 * factor))
    step = round(16 * factor)
    centres = np.s_[step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal(sample.target.numpy()[centres], ids[8::16, 8::16])
    inner = sample.inputs.numpy()[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(inner[0][centres], ids[8::16, 8::16] * 50.0, atol=2)


@dataclass
class OneImage:
    """Mock data set of one image."""

    size: tuple[int, int] = (61, 77)

    def __post_init__(self) -> None:
        self.pairs = [LabelledImage("file:///image", "file:///label", "1")]

    def __len__(self) -> int:
        return 1

    def image(self, index: int) -> np.ndarray:
        return scene(*self.size)[0]

    def label(self, index: int) -> np.ndarray:
        return scene(*self.size)[1]

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return scene(*self.size)


def network() -> Network:
    torch.manual_seed(0)
    spec = NetworkSpec(("a", "b", "c"), ((0, 0, 0),) * 3, MEAN)
    return Network(spec, DilatedFrontEnd(3, WIDTHS).eval(), None)


@pytest.mark.parametrize("kind", ["features", "scores"])
@pytest.mark.parametrize("mirror", [False, True])
def test_cached_maps_equal_those_of_the_crop(kind: StageInput, mirror: bool, tmp_path: Path) -> None:
    made = network()
    images = OneImage()
    cache = MapCache(Storage(), str(tmp_path), made, kind)
    assert cache.missing(images, [mirror]) == [(0, mirror)]
    cache.fill(images, [(0, mirror)])
    assert cache.missing(images, [mirror]) == []
    maps = cache.load(images, 0, mirror)
    cells = 4
    part = made.front_end.features if kind == "features" else made.front_end
    image, label = (each[:, ::-1] if mirror else each for each in images.pair(0))
    # Rows and columns of the mirrored image at which a crop of whole cells can start: 8 - 4 and 10 - 4 choices.
    for place in ((0.0, 0.0), (0.5, 0.4), (0.99, 0.99)):
        rule = SampleRule(8 * cells + 2 * MARGIN, MEAN)
        sample = map_sample(maps, images.label(0), SampleParams(0, *place, mirror), rule, cache.halo)
        assert sample.inputs.shape[1:] == (cells + cache.halo, cells + cache.halo)
        top = int(place[0] * 5) * 8
        left = int(place[1] * 7) * 8
        wide = np.pad(image, ((MARGIN, 300), (MARGIN, 300), (0, 0)), mode="reflect")
        crop = np.ascontiguousarray(wide[top : top + 8 * cells + 372, left : left + 8 * cells + 372, ::-1])
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() - torch.tensor(MEAN).view(3, 1, 1)
        with torch.inference_mode():
            direct = part(pixels[None])[0]
        torch.testing.assert_close(sample.inputs, direct, rtol=2e-3, atol=0.05 if kind == "features" else 1e-4)
        np.testing.assert_array_equal(
            sample.target.numpy(), label[top : top + 8 * cells : 8, left : left + 8 * cells : 8]
        )


def test_scores_from_cached_features_are_those_of_the_image(tmp_path: Path) -> None:
    made = network()
    images = OneImage()
    features = MapCache(Storage(), str(tmp_path), made, "features")
    features.fill(images, [(0, True)])
    from_features = MapCache(Storage(), str(tmp_path), made, "scores", features).compute(images, 0, True)
    direct = MapCache(Storage(), str(tmp_path), made, "scores").compute(images, 0, True)
    torch.testing.assert_close(from_features, direct, rtol=5e-3, atol=5e-3)


def test_maps_are_keyed_by_the_weights_before_them(tmp_path: Path) -> None:
    made = network()

    def roots() -> tuple[str, str]:
        kinds: tuple[StageInput, StageInput] = ("features", "scores")
        return tuple(MapCache(Storage(), str(tmp_path), made, kind)._root for kind in kinds)  # type: ignore[return-value]

    first = roots()
    with torch.no_grad():
        made.front_end.fc6.bias[0] += 1
    of_other_head = roots()
    with torch.no_grad():
        made.front_end.conv4_2.bias[0] += 1
    of_other_convolutions = roots()
    assert of_other_head[0] == first[0], "fc6 has no part in conv5_3 maps"
    assert len({first[1], of_other_head[1], of_other_convolutions[1]}) == 3
    assert of_other_convolutions[0] != first[0]


def test_a_map_that_was_never_computed_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncompleteRun, match=r"scores map .* is missing: submit the same command again"):
        MapCache(Storage(), str(tmp_path), network(), "scores").load(OneImage(), 0, False)
