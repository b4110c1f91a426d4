"""Safe decoding of images that somebody else put into a bucket.

Rules: JPEG, PNG, WebP, TIFF and BMP, told by content and not by name. EXIF orientation is applied. CMYK and palettes
become RGB; grey becomes three equal channels; 16-bit grey keeps its upper eight bits; alpha is dropped and the
colour taken as stored; of animations and multi-page files the first frame counts. Everything else is refused.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import DecodeError

__all__ = ["DAMAGE", "FORMATS", "MAX_PIXELS", "decode_image", "open_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
MAX_PIXELS = 100_000_000
_DIRECT = frozenset({"RGB", "L", "1", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "RGBX", "La", "RGBa"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# All that Pillow's decoders were seen to raise on damaged input; none of it says more than: not an image.
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes one image.

    Args:
        data: the whole file.
        max_pixels: refuse larger images before a pixel is decoded. Pillow itself refuses above 178,956,970.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DecodeError: with the reason; nothing else, whatever the bytes.
    """
    try:
        image = open_image(data, FORMATS, max_pixels)
        return _to_rgb(ImageOps.exif_transpose(image))
    except DAMAGE as error:
        raise DecodeError(f"damaged: {type(error).__name__}: {error}") from error


def open_image(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    """Reads the header, checks the size, decodes the first frame in its own mode.

    Raises:
        DecodeError: for no data, another format, or too many pixels.
        Exception: whatever Pillow raises on damaged data.
    """
    if not data:
        raise DecodeError("the file is empty")
    with warnings.catch_warnings():
        # Size is judged below, by our own limit; Pillow's warnings about it and about odd metadata are noise.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError as error:
            raise DecodeError(f"not a {', '.join(formats)} file") from error
        width, height = image.size
        if width * height > max_pixels:
            raise DecodeError(f"{width}×{height} pixels are more than the limit of {max_pixels}")
        if width < 1 or height < 1:
            raise DecodeError(f"{width}×{height} pixels are no image")
        image.load()
    return image


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT:
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode not in _DIRECT:
        raise DecodeError(f"pixels of mode {image.mode} have no fixed range: convert the file to 8 or 16 bits")
    if image.mode in ("RGBA", "RGBX", "LA"):
        # Slicing, not compositing: Pillow's conversion from P with transparency takes the same colours.
        colours = np.asarray(image)[:, :, : len(image.mode) - 1]
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    return np.asarray(image.convert("RGB"))
