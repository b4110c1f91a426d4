"""Tests of image decoding by the stated rules; anything else raises DecodeError and no other exception."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import images
from pipeline.data.images import decode_image
from pipeline.errors import DecodeError

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize("kind,options", [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_are_exact(kind: str, options: dict[str, object]) -> None:
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(RGB), kind, **options)), RGB)


def test_jpeg_is_close() -> None:
    smooth = np.asarray(Image.fromarray(RGB[:3, :4]).resize((64, 48), Image.Resampling.BICUBIC))
    decoded = decode_image(encode(Image.fromarray(smooth), "JPEG", quality=95, subsampling=0))
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    turned = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1],
        5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(RGB), "PNG", exif=exif)), turned)


def test_grey_palette_alpha_and_one_bit() -> None:
    grey = RGB[:, :, 0]
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(grey), "PNG")), np.dstack([grey] * 3))
    indexed = Image.fromarray(grey % 4, mode="P")
    indexed.putpalette([9, 8, 7, 50, 60, 70, 1, 2, 3, 200, 0, 100])
    expected = np.array([[9, 8, 7], [50, 60, 70], [1, 2, 3], [200, 0, 100]], np.uint8)[grey % 4]
    np.testing.assert_array_equal(decode_image(encode(indexed, "PNG")), expected)
    with_alpha = np.dstack([RGB, grey])
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(with_alpha), "PNG")), RGB)
    grey_alpha = Image.fromarray(np.dstack([grey, grey]), mode="LA")
    np.testing.assert_array_equal(decode_image(encode(grey_alpha, "PNG")), np.dstack([grey] * 3))
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(decode_image(encode(bits, "PNG"))[:, :, 1], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (5, 6), dtype=np.uint16)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(deep), kind))[:, :, 2], deep >> 8)


def test_cmyk_becomes_rgb() -> None:
    red = decode_image(encode(Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(red.astype(int) - [200, 30, 40]).max() < 12


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(DecodeError, match="mode F"):
        decode_image(encode(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (10, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data)[0, 0].tolist() == [10, 10, 10]


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_bombs_are_refused_by_their_header() -> None:
    with pytest.raises(DecodeError):
        decode_image(png_header(60_000, 60_000) + b"\x00" * 100)
    with pytest.raises(DecodeError, match="17×12 pixels are more than the limit of 203"):
        decode_image(encode(Image.fromarray(RGB), "PNG"), max_pixels=203)


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "empty"),
        (b"<html><body>403</body></html>", "not a JPEG"),
        (b"GIF89a" + b"\x01\x00\x01\x00\x00\x00\x00;", "not a JPEG"),
        (encode(Image.fromarray(RGB), "PNG")[:80], "damaged"),
        (encode(Image.fromarray(np.tile(RGB, (9, 9, 1))), "JPEG")[:-900], "damaged"),
    ],
)
def test_other_files_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_image(data)


SEEDS = [
    encode(Image.fromarray(RGB), "JPEG"),
    encode(Image.fromarray(RGB), "JPEG", progressive=True),
    encode(Image.fromarray(RGB), "PNG"),
    encode(Image.fromarray(RGB), "WEBP"),
    encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    encode(Image.fromarray(RGB[:, :, 0] // 64, mode="L"), "BMP"),
]


@settings(max_examples=300)
@given(st.data())
def test_mutations_decode_or_are_refused(data: st.DataObject) -> None:
    image = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(image[: data.draw(st.integers(0, len(image)))]), max_pixels=1_000_000)
    except DecodeError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


def test_heic_photographs_are_upright_pictures() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    pillow_heif.register_heif_opener()
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32] = (200, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    for turn in (0, 3):
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "HEIF", quality=95, **({"exif": exif.tobytes()} if turn else {}))
        expected = np.rot90(pixels, turn).astype(int)
        decoded = decode_image(sink.getvalue())
        assert decoded.shape == expected.shape and np.abs(decoded - expected).mean() < 6
        for length in (16, 64, len(sink.getvalue()) // 2):
            with pytest.raises(DecodeError):
                decode_image(sink.getvalue()[:length])
        with pytest.raises(DecodeError, match="more than the limit of 1000"):
            decode_image(sink.getvalue(), max_pixels=1000)


def test_heic_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "HAS_HEIF", False)
    images._register_heif.cache_clear()
    try:
        with pytest.raises(DecodeError, match=r"pip install 'dilated-context\[heic\]'"):
            decode_image(b"\0\0\0\x1cftypheic\0\0\0\0")
    finally:
        images._register_heif.cache_clear()
