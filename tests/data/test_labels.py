"""Labels by value, masks that come back as they were, and the published label spaces."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pipeline.data.label_spaces import LABEL_SPACES, label_space
from pipeline.data.labels import decode_label, decode_mask, encode_confidence, encode_mask
from pipeline.errors import ConfigError, DecodeError

VOC = LABEL_SPACES["voc"]


def png(values: np.ndarray, palette: list[int] | None = None) -> bytes:
    image = Image.fromarray(values, mode="P" if palette else None)
    if palette:
        image.putpalette(palette)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def test_palette_files_give_their_indices() -> None:
    values = np.array([[0, 1], [15, 255]], np.uint8)
    palette = [channel for colour in VOC.palette for channel in colour] + [0] * (768 - 63)
    assert decode_label(png(values, palette), 21).tolist() == values.tolist()
    assert decode_label(png(values), 21).tolist() == values.tolist()


def test_the_void_of_the_segnet_files_is_ignored() -> None:
    values = np.array([[0, 10, 11]], np.uint8)
    space = LABEL_SPACES["camvid_segnet"]
    assert decode_label(png(values), 11, 255, space).tolist() == [[0, 10, 255]]
    with pytest.raises(DecodeError, match=r"\[11\].*--label-space"):
        decode_label(png(values), 11)


def test_cityscapes_label_ids() -> None:
    values = np.array([[0, 7, 8, 23, 33, 26, 29]], np.uint8)
    decoded = decode_label(png(values), 19, 255, LABEL_SPACES["cityscapes_label_ids"])
    assert decoded.tolist() == [[255, 0, 1, 10, 18, 13, 255]]


def test_colour_labels_need_a_label_space() -> None:
    colours = np.array([[VOC.palette[3], (1, 2, 3)]], np.uint8)
    assert decode_label(png(colours), 21, 255, VOC).tolist() == [[3, 255]]
    with pytest.raises(DecodeError, match="label-space"):
        decode_label(png(colours), 21)


def test_values_of_no_class_and_lossy_labels_are_refused() -> None:
    assert decode_label(png(np.array([[0, 20], [255, 3]], np.uint16)), 21).tolist() == [[0, 20], [255, 3]]
    with pytest.raises(DecodeError, match=r"\[300\] \(2 of 4 pixels\)"):
        decode_label(png(np.array([[0, 300], [300, 3]], np.uint16)), 21)
    sink = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(sink, "JPEG")
    with pytest.raises(DecodeError, match="not a PNG"):
        decode_label(sink.getvalue(), 21)


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 20)))
def test_masks_come_back(labels: np.ndarray) -> None:
    data = encode_mask(labels, VOC.palette)
    np.testing.assert_array_equal(decode_mask(data), labels)
    assert data == encode_mask(labels.copy(), VOC.palette)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(shown, np.array(VOC.palette, np.uint8)[labels])


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_confidences_come_back(confidence: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_confidence(confidence)), confidence)


def test_label_spaces_of_the_paper() -> None:
    assert VOC.palette[15] == (192, 128, 128)
    assert VOC.palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert (VOC.classes[0], VOC.classes[15], len(VOC.classes)) == ("background", "person", 21)
    camvid, segnet = LABEL_SPACES["camvid"], LABEL_SPACES["camvid_segnet"]
    assert camvid.classes[:3] == ("building", "tree", "sky")
    assert segnet.classes[:3] == ("sky", "building", "pole")
    assert dict(zip(camvid.classes, camvid.palette, strict=True)) == dict(
        zip(segnet.classes, segnet.palette, strict=True)
    )
    assert len(LABEL_SPACES["cityscapes"].classes) == 19
    for space in LABEL_SPACES.values():
        assert len(space.classes) == len(space.palette) == len(set(space.classes))
    with pytest.raises(ConfigError, match="cityscapes_label_ids"):
        label_space("city")
