"""Safe decoding of images that somebody else put into a bucket.

Rules: JPEG, PNG, WebP, TIFF and BMP, and HEIC where the extra `heic` is installed, told by content and not by name,
whole and undamaged as far as the format lets that be known. EXIF orientation is applied. CMYK and palettes become RGB;
grey becomes three equal channels; 16-bit grey keeps its upper eight bits; alpha is dropped and the colour taken as
stored; colour profiles are not applied; of animations and multi-page files the first frame counts. Everything else is
refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import struct
import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.containers import check_size, has_all_rows, screen
from pipeline.data.exif import turned
from pipeline.errors import DecodeError

__all__ = ["FORMATS", "HAS_HEIF", "MAX_PIXELS", "decode_image", "one_reason", "open_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIF")
# Whether HEIC photographs can be decoded, which needs the extra `heic`.
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
MAX_PIXELS = 100_000_000
_DIRECT = frozenset({"RGB", "L", "1", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "RGBX", "La", "RGBa"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# A file needs no more: 16 bits of four channels, and metadata.
_BYTES_PER_PIXEL, _METADATA = 8, 64 * 2**20
_BLOCK = 256  # side of what is converted at once
_LONGEST = 200  # characters of somebody else's message
# Sizes are judged by our own limit, and remarks about odd metadata are noise. Once for all: threads decode at the same
# time, and a filter that is set and taken back by one of them is taken from the others.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes one image.

    Args:
        data: the whole file.
        max_pixels: refuse larger images before a pixel is decoded. Pillow itself refuses above 178,956,970.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DecodeError: with the reason, in one short line; nothing else, whatever the bytes.
    """
    with one_reason():
        image, orientation = open_image(data, FORMATS, max_pixels)
        pixels = _to_rgb(image)
        del image
        return turned(pixels, orientation)


def open_image(data: bytes, formats: tuple[str, ...], max_pixels: int) -> tuple[Image.Image, int]:
    """Judges the file, decodes the first frame in its own mode.

    Returns:
        The image, and the EXIF orientation that is still to be applied.

    Raises:
        DecodeError: for no data, another format, a file that is cut or damaged, or too many pixels.
        Exception: whatever Pillow raises on other damage.
    """
    if len(data) > _BYTES_PER_PIXEL * max_pixels + _METADATA:
        raise DecodeError(f"{len(data)} bytes are more than {max_pixels} pixels, the limit, can need")
    screened = screen(data, formats, max_pixels)
    if screened.format == "HEIF":
        _register_heif()
    try:
        image = Image.open(io.BytesIO(screened.data), formats=(screened.format,))
    except UnidentifiedImageError as error:
        # Pillow's message names an address in memory: another one each time, and of use to nobody.
        raise DecodeError(f"damaged: the header of a {screened.format} that makes no sense") from error
    check_size(*image.size, max_pixels)
    image.load()
    if screened.format == "PNG" and _may_lack_rows(image) and not has_all_rows(screened.data):
        raise DecodeError("damaged: the compressed data end before the picture does")
    return image, screened.orientation


@cache
def _register_heif() -> None:
    """Teach Pillow to open HEIC files.

    Raises:
        DecodeError: If the extra is not installed.
    """
    if not HAS_HEIF:
        raise DecodeError("HEIC photographs need another library: pip install 'dilated-context[heic]'")
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


@contextlib.contextmanager
def one_reason() -> Iterator[None]:
    """Whatever decoders raise on bytes that make no sense becomes a `DecodeError` of one short, printable line."""
    try:
        yield
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError("more pixels than any limit allows") from error
    except MemoryError as error:
        raise DecodeError("there is not enough memory to decode it") from error
    except (struct.error, IndexError) as error:
        raise DecodeError("damaged: the header is cut or makes no sense") from error
    # Decoders raise whatever Python has: no list of kinds is ever complete.
    except Exception as error:
        text = "".join(each if each.isprintable() else "?" for each in str(error)[:_LONGEST])
        raise DecodeError(f"damaged: {type(error).__name__}: {text}") from error


def _may_lack_rows(image: Image.Image) -> bool:
    """Rows that never came are zero, the last one among them; that of most pictures is not."""
    width, height = image.size
    return "interlace" in image.info or not np.asarray(image.crop((0, height - 1, width, height))).any()


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Block by block: conversions and Pillow's way to numpy make several copies of what they are given."""
    if image.mode not in _DIRECT | _SIXTEEN_BIT:
        raise DecodeError(f"pixels of mode {image.mode} have no fixed range: convert the file to 8 or 16 bits")
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            right, bottom = min(left + _BLOCK, width), min(top + _BLOCK, height)
            pixels[top:bottom, left:right] = _block_to_rgb(image.crop((left, top, right, bottom)))
    return pixels


def _block_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT:
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
    if image.mode in ("RGBA", "RGBX", "LA"):
        # Slicing, not compositing: Pillow's conversion from P with transparency takes the same colours.
        return np.asarray(image)[:, :, : len(image.mode) - 1]
    return np.asarray(image.convert("RGB"))
