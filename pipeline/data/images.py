"""Safe decoding of untrusted images from a bucket.

JPEG, PNG, WebP, TIFF and BMP are decoded, and HEIC if the extra `heic` is installed. The content decides the format,
not the name. Files must be complete and undamaged, as far as the format lets that be checked. EXIF orientation is
applied. CMYK and palettes become RGB; gray becomes three equal channels; 16-bit gray keeps its upper eight bits. Alpha
is dropped and the stored color is used. Color profiles are not applied. Animations and multi-page files give their
first frame. Everything else is refused.
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

from pipeline.data.containers import LARGEST_MAX_PIXELS, MAX_PIXELS, check_size, has_all_rows, screen
from pipeline.data.tiff import apply_orientation
from pipeline.errors import DecodeError

__all__ = [
    "FORMATS",
    "HAS_HEIF",
    "LARGEST_MAX_PIXELS",
    "MAX_PIXELS",
    "decode_image",
    "normalize_decode_error",
    "open_image",
]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIF")
# True if HEIC photographs can be decoded, which needs the extra `heic`.
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
_DIRECT = frozenset({"RGB", "L", "1", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "RGBX", "La", "RGBa"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Largest useful file: 8 bytes per pixel (four channels of 16 bits), and 64 MiB of metadata.
_BYTES_PER_PIXEL = 8
_METADATA = 64 * 2**20
_BLOCK = 256  # side of the blocks that are converted one by one, in pixels
_LONGEST = 200  # characters of a decoder's message
# `max_pixels` replaces Pillow's limit, and warnings about odd metadata are noise. The filter is set once for the
# process: threads decode at the same time, and a filter that one of them removes is removed for all.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image file to RGB.

    Args:
        data: Bytes of the whole file.
        max_pixels: Largest number of pixels, width × height; a larger image is refused before a pixel is decoded.
            Pillow itself refuses images above `LARGEST_MAX_PIXELS`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DecodeError: If the file cannot be decoded, with the reason in one short line. No other exception is raised,
            whatever the bytes.
    """
    with normalize_decode_error():
        image, orientation = open_image(data, FORMATS, max_pixels)
        pixels = _to_rgb(image)
        del image
        return apply_orientation(pixels, orientation)


def open_image(data: bytes, formats: tuple[str, ...], max_pixels: int) -> tuple[Image.Image, int]:
    """Check a file and decode its first frame in the frame's own color mode.

    Args:
        data: Bytes of the whole file.
        formats: Pillow's names of the accepted formats.
        max_pixels: Largest number of pixels, width × height.

    Returns:
        The image, and the EXIF orientation that the caller still has to apply.

    Raises:
        DecodeError: If the file is empty, has another format, is truncated or damaged, or has too many pixels.
        Exception: If Pillow finds other damage; the type depends on the decoder.
    """
    if len(data) > _BYTES_PER_PIXEL * max_pixels + _METADATA:
        raise DecodeError(f"{len(data)} bytes are more than {max_pixels} pixels, the limit, can need")
    screened = screen(data, formats, max_pixels)
    if screened.format == "HEIF":
        _register_heif()
    try:
        image = Image.open(io.BytesIO(screened.data), formats=(screened.format,))
    except UnidentifiedImageError as error:
        # Pillow's message contains a memory address, which differs each time and helps no user.
        raise DecodeError(f"damaged: the header of a {screened.format} that makes no sense") from error
    check_size(*image.size, max_pixels)
    image.load()
    # Counting the rows decompresses the file again, so a cheap test comes first.
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
def normalize_decode_error() -> Iterator[None]:
    """Translate all exceptions of decoders into a `DecodeError` with one short, printable line."""
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
    # Decoders may raise any exception type, so no list of types would be complete.
    except Exception as error:
        text = "".join(each if each.isprintable() else "?" for each in str(error)[:_LONGEST])
        raise DecodeError(f"damaged: {type(error).__name__}: {text}") from error


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether rows may be missing: the image is interlaced, or its last row is zero.

    Missing rows are zero, and the last row is among them; the last row of most complete pictures is not zero.
    """
    width, height = image.size
    return "interlace" in image.info or not np.asarray(image.crop((0, height - 1, width, height))).any()


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image to (H, W, 3) uint8 RGB.

    The conversion runs block by block, because Pillow's conversions and its export to NumPy make several copies.
    """
    if image.mode not in _DIRECT | _SIXTEEN_BIT:
        raise DecodeError(f"pixels of mode {image.mode} have no fixed range: convert the file to 8 or 16 bits")
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            right = min(left + _BLOCK, width)
            bottom = min(top + _BLOCK, height)
            pixels[top:bottom, left:right] = _block_to_rgb(image.crop((left, top, right, bottom)))
    return pixels


def _block_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a block to (h, w, 3) uint8, or to (h, w, 1) for 16-bit gray and gray with alpha."""
    if image.mode in _SIXTEEN_BIT:
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
    if image.mode in ("RGBA", "RGBX", "LA"):
        # Slices instead of compositing: Pillow's conversion from P with transparency takes the same colors.
        return np.asarray(image)[:, :, : len(image.mode) - 1]
    return np.asarray(image.convert("RGB"))
