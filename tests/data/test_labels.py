"""Tests of labels by value, of masks that are read back unchanged, and of the published label spaces."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pipeline.data.label_spaces import LABEL_SPACES, LabelEncoding, LabelSpace, label_space
from pipeline.data.labels import (
    decode_label,
    decode_mask,
    encode_confidence,
    encode_mask,
    encode_values,
    label_values,
)
from pipeline.errors import ConfigError, DecodeError, UnknownClasses
from pipeline.segmentation.config import SegmentConfig
from tests.shared import png_header

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
    camvid = LABEL_SPACES["camvid"]
    segnet = LABEL_SPACES["camvid_segnet"]
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


def own(**changes: Any) -> LabelSpace:
    """Return a label space of three own classes with gaps, a void value and a void color."""
    settings: dict[str, Any] = {
        "values": ((0,), (4, 300), (7,)),
        "ignored": (9, 255),
        "colors": (((10, 20, 30),), ((40, 50, 60), (41, 51, 61)), ((70, 80, 90),)),
        "ignored_colors": ((1, 2, 3),),
    }
    encoding = LabelEncoding(**{**settings, **changes})
    return LabelSpace("own", ("a", "b", "c"), ((0, 0, 0),) * 3, encoding=encoding)


@given(
    st.data(),
    st.sampled_from(["L", "P", "I;16", "LA", "RGB", "RGBA"]),
    st.lists(st.integers(0, 255), min_size=4, max_size=8, unique=True),
)
def test_every_kind_of_file_is_read_by_value(data: st.DataObject, mode: str, values: list[int]) -> None:
    """Compared with a dictionary, pixel by pixel."""
    *classes, void = values
    space = own(
        values=tuple((value,) for value in classes), ignored=(void,), colors=((),) * len(classes), ignored_colors=()
    )
    meaning = {value: class_id for class_id, value in enumerate(classes)} | {void: 255}
    stored = data.draw(npst.arrays(np.uint8, (5, 7), elements=st.sampled_from(values)))
    image = Image.fromarray(stored.astype(np.uint16) if mode == "I;16" else stored)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    elif mode != "I;16":
        image = image.convert(mode)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    expected = [[meaning[int(value)] for value in row] for row in stored]
    assert decode_label(sink.getvalue(), len(classes), 255, space).tolist() == expected
    assert label_values(sink.getvalue()).tolist() == stored.tolist()


def test_files_of_one_bit_hold_0_and_1() -> None:
    for file_format in ("PNG", "TIFF", "BMP"):
        sink = io.BytesIO()
        Image.fromarray(np.array([[True, False, True]])).save(sink, file_format)
        assert decode_label(sink.getvalue(), 2).tolist() == [[1, 0, 1]], file_format


def test_color_masks_are_read_by_the_palette_and_nothing_else() -> None:
    colors = np.array([[(10, 20, 30), (41, 51, 61)], [(1, 2, 3), (70, 80, 90)]], np.uint8)
    assert decode_label(png(colors), 3, 255, own()).tolist() == [[0, 1], [255, 2]]
    colors[0, 0] = (10, 20, 31)
    with pytest.raises(UnknownClasses, match=r"x\.png has colors of no class: \(10, 20, 31\) \(1 of 4 pixels\)"):
        decode_label(png(colors), 3, 255, own(), name="x.png")


def test_unknown_values_are_named_with_their_pixels() -> None:
    values = np.array([[0, 5, 5], [4, 9, 6]], np.uint8)
    with pytest.raises(UnknownClasses, match=r"x\.png has values of no class: \[5\] \(2 of 6 pixels\), \[6\] \(1 of 6"):
        decode_label(png(values), 3, 255, own(), name="x.png")
    wide = np.array([[0, 300, 4, 9]], np.uint16)
    assert decode_label(png(wide), 3, 255, own()).tolist() == [[0, 1, 1, 255]]


def test_gray_in_color_files_is_a_color_where_every_class_has_one() -> None:
    black_and_white = own(values=((0,), (1,), (2,)), colors=(((0, 0, 0),), ((255, 255, 255),), ((9, 0, 0),)))
    gray = np.array([[[0] * 3, [255] * 3]], np.uint8)
    # White is a listed color here, and 255 is void in files of one channel alone.
    assert decode_label(png(gray), 3, 255, black_and_white).tolist() == [[0, 1]]
    assert decode_label(png(gray[:, :, 0]), 3, 255, black_and_white).tolist() == [[0, 255]]
    swapped = own(values=((0,), (1,), (2,)), colors=(((70, 130, 180),), ((0, 0, 0),), ((9, 0, 0),)))
    assert decode_label(png(np.zeros((1, 2, 3), np.uint8)), 3, 255, swapped).tolist() == [[1, 1]]
    assert decode_label(png(np.full((1, 2, 3), 2, np.uint8)), 3, 255, swapped).tolist() == [[2, 2]]
    # With colors for only some classes, the file may also hold values.
    some = own(values=((0,), (1,), (2,)), colors=((), ((0, 0, 0),), ()))
    assert decode_label(png(np.zeros((1, 2, 3), np.uint8)), 3, 255, some).tolist() == [[0, 0]]
    with pytest.raises(UnknownClasses, match=r"values of no class: \[77\]"):
        decode_label(png(np.full((1, 2, 3), 77, np.uint8)), 3, 255, some)


def test_without_listed_colors_the_palette_reads_colored_files() -> None:
    space = LabelSpace("own", ("a", "b"), ((128, 128, 128), (1, 2, 3)), encoding=LabelEncoding(((0,), (128,))))
    assert decode_label(png(np.array([[(1, 2, 3), (128, 128, 128)]], np.uint8)), 2, 255, space).tolist() == [[1, 0]]
    assert decode_label(png(np.full((1, 1, 3), 128, np.uint8)), 2, 255, space).tolist() == [[1]]


def test_values_that_pillow_does_not_keep_are_refused() -> None:
    rows = b"".join(b"\x00" + bytes([0, 4, 0xFF, 0xFF] * 3) for _ in range(2))
    header = struct.pack(">IIBBBBB", 3, 2, 16, 4, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    gray_alpha_16 = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    with pytest.raises(UnknownClasses, match="with 16 bits a channel"):
        decode_label(gray_alpha_16, 3, 255, own())


@given(npst.arrays(np.uint8, (4, 6), elements=st.integers(0, 2)), st.booleans())
def test_values_of_label_files_are_written_back(ids: np.ndarray, wide: bool) -> None:
    space = own(values=((0,), (300 if wide else 4,), (7,)))
    data = encode_values(ids, space.file_values())
    assert np.array_equal(decode_label(data, 3, 255, space), ids)
    assert Image.open(io.BytesIO(data)).mode == ("I;16" if wide else "L")
    assert label_space("cityscapes_label_ids").file_values()[:3] == (7, 8, 11)


def test_every_mask_that_max_pixels_allows_is_read_again() -> None:
    """Limit: encoder and decoder share one; a file that ends after its header shows which sizes pass it."""
    (most,) = (bound.le for bound in SegmentConfig.model_fields["max_pixels"].metadata if hasattr(bound, "le"))
    assert most % 10 == 0
    with pytest.raises(DecodeError, match="truncated"):
        decode_mask(png_header(most // 10, 10))
    with pytest.raises(DecodeError, match="more than the limit"):
        decode_mask(png_header(most // 10 + 1, 10))


def test_a_mask_above_the_default_limit_is_read_again() -> None:
    """Limit: a run with a higher `--max-pixels` than the default of 100 million."""
    labels = np.zeros((10_000, 10_001), np.uint8)
    labels[-1, -1] = 1
    assert np.array_equal(decode_mask(encode_mask(labels, VOC.palette)), labels)
