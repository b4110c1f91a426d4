"""Checks of untrusted image files before a decoder reads them.

Decoders keep text, profiles and previews in memory, trust sizes that a few bytes state, and accept much truncated or
damaged data as a picture. JPEG and PNG files are therefore reduced to the data that make pixels, which must be complete
and have valid checksums. Files of the other formats pass unchanged, within limits.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.tiff import check_tiff, exif_orientation
from pipeline.errors import DecodeError

__all__ = ["LARGEST_MAX_PIXELS", "MAX_PIXELS", "Screened", "check_size", "has_all_rows", "screen"]

# Pixels of the largest image, width × height, unless a caller sets another limit.
MAX_PIXELS = 100_000_000
# Largest limit that a caller may set: Pillow refuses larger images. Masks have as many pixels as their images, so a
# reader of masks must accept this size, whatever limit the run had.
LARGEST_MAX_PIXELS = 178_956_970

_PIECES = 2**18  # largest number of chunks or segments in a file
_SCANS = 100  # largest number of scans in a JPEG: each costs a pass over the whole picture, whatever its length
_RLE_PIXELS = 2**24  # largest run-length encoded BMP, which Pillow unpacks in Python
# JPEG markers, by their second byte; `_FRAMES` start a frame.
_EXIF = 0xE1
_COMMENT = 0xFE
_ADOBE = 0xEE
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC))
_SCAN = 0xDA
_END = 0xD9
_TEM = 0x01
_START = 0xD8
_IHDR = struct.Struct(">IIBBBBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # number of channels, by PNG color type
# Adam7 passes of an interlaced PNG: left, top, step to the right, step down.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# A marker; stuffed zeros, restart markers and fill bytes do not match.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_TRUNCATED = "damaged: truncated, the file ends before its picture does"


@dataclass(frozen=True)
class Screened:
    """Checked file that may be decoded.

    Attributes:
        format: Pillow's name of the format.
        data: Bytes for the decoder.
        orientation: EXIF orientation, 1–8, that the caller still has to apply.
    """

    format: str
    data: bytes
    orientation: int = 1


def screen(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Screened:
    """Detect the format of a file by content, and return the data that its decoder needs.

    Args:
        data: Bytes of the whole file.
        formats: Pillow's names of the accepted formats.
        max_pixels: Largest number of pixels, width × height.

    Raises:
        DecodeError: If the format is not accepted, the file is truncated or damaged, or decoding would cost more than
            `max_pixels` pixels may. The message is the reason.
        struct.error, IndexError: If the header is truncated.
    """
    if not data:
        raise DecodeError("the file is empty")
    for name, magic, screener in _FORMATS:
        if name in formats and magic.match(data):
            return screener(data, max_pixels)
    # HEIC is an optional extra, so the message does not mention it.
    named = ", ".join(name for name in formats if name != "HEIF")
    raise DecodeError(f"not a {named} file: it begins with {data[:8]!r}")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise DecodeError if an image has no pixels, or more than `max_pixels`."""
    if width * height > max_pixels:
        raise DecodeError(f"{width}×{height} pixels are more than the limit of {max_pixels}")
    if width < 1 or height < 1:
        raise DecodeError(f"{width}×{height} pixels are no image")


def has_all_rows(png: bytes) -> bool:
    """Return whether the compressed data of a screened PNG hold as many rows as its header states.

    Pillow leaves missing rows black.
    """
    width, height, bits, colour, _, _, interlaced = _IHDR.unpack_from(png, 16)
    # Bytes of all rows: one filter byte each, then the packed pixels.
    missing = 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns = -(-(width - left) // right)
        rows = -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * bits * _CHANNELS[colour] + 7) // 8)
    # Decompress in pieces of 1 MiB, which bounds memory, until enough bytes have come.
    stream = zlib.decompressobj()
    for kind, content, _ in _chunks(png):
        waiting = bytes(content) if kind == b"IDAT" else b""
        while waiting and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(waiting, 2**20))
            waiting = stream.unconsumed_tail
    return missing <= 0


def _jpeg(data: bytes, max_pixels: int) -> Screened:
    """Reduce a JPEG to its picture data, with an end that makes missing data an error.

    Comments and application data are dropped, except APP0 and Adobe's APP14, which defines the colors.
    """
    kept: list[bytes | memoryview] = [data[:2]]
    view = memoryview(data)
    orientation = 1
    scans = 0
    body = 0
    whole = b""
    frame = channels = 0
    for marker, start, after in _segments(data):
        if marker == _SCAN:
            scans = scans + 1
            body = body or start
            # If data end early, a decoder fills the picture up with gray, unless no end marker allows that: then it
            # asks for more data. The appended bytes contain only one-bits, which form no code. They fill the decoder's
            # look-ahead but give no pixels. Files other than one scan of Huffman codes need their end marker.
            lonely = scans == 1 and frame in (0xC0, 0xC1) and data[start + 4] == channels
            whole = b"\xff\x00" * 8 if lonely else b"\xff\xd9"
            if scans > _SCANS:
                raise DecodeError(f"more than {_SCANS} scans: each would cost a pass over the whole picture")
        elif marker == _END:
            break
        elif not scans and (marker == _COMMENT or (marker & 0xF0 == 0xE0 and marker not in (0xE0, _ADOBE))):
            if marker == _EXIF and data[start + 4 : start + 10] == b"Exif\0\0":
                orientation = exif_orientation(data[start + 4 : after])
        elif not scans:
            if marker in _FRAMES:
                frame = marker
                channels = data[start + 9]
                height, width = struct.unpack_from(">HH", data, start + 5)
                check_size(width, height, max_pixels)
            kept.append(view[start:after])
    if not scans:
        raise DecodeError("damaged: a JPEG without a picture")
    # The picture data reach from the first scan to the end marker.
    return Screened("JPEG", b"".join([*kept, view[body:start], whole]), orientation)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment, up to the end marker.

    Coded data lie between the segments.

    Raises:
        DecodeError: If the file is truncated or has too many segments.
    """
    place = 2
    for _ in range(_PIECES):
        found = _MARKER.search(data, place)
        if found is None:
            raise DecodeError(_TRUNCATED)
        start = found.start()
        marker = data[found.start() + 1]
        if marker in (_END, _TEM, _START):
            place = start + 2
        else:
            # The length field follows the marker and counts its own two bytes.
            place = start + 2 + int.from_bytes(data[start + 2 : start + 4])
            if place > len(data) or place < start + 4:
                raise DecodeError(_TRUNCATED)
        yield marker, start, place
        if marker == _END:
            return
    raise DecodeError(f"more than {_PIECES} segments")


def _png(data: bytes, max_pixels: int) -> Screened:
    """Keep only the critical chunks of a PNG.

    Ancillary chunks (text, profiles, animation) are dropped. Transparency is not used either.
    """
    kept: list[bytes | memoryview] = [data[:8]]
    orientation = 1
    colour = 0
    kinds: set[bytes] = set()
    for kind, content, whole in _chunks(data):
        if (kind == b"IHDR") != (not kinds):
            raise DecodeError("damaged: a PNG has one header, and begins with it")
        kinds.add(kind)
        if kind == b"IHDR":
            width, height, _, colour, *_ = _IHDR.unpack(content)
            check_size(width, height, max_pixels)
        if kind == b"eXIf":
            orientation = exif_orientation(bytes(content))
        # A capital first letter marks a critical chunk.
        if not kind[0] & 0x20:
            kept.append(whole)
    if colour == 3 and b"PLTE" not in kinds:
        raise DecodeError("damaged: a palette PNG without a palette")
    return Screened("PNG", b"".join(kept), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield type, content and complete bytes of each PNG chunk, up to the last.

    The CRC of each chunk is checked here, because Pillow does not check it for compressed rows.

    Raises:
        DecodeError: If the file is truncated, a CRC is wrong, or there are too many chunks.
    """
    view = memoryview(data)
    place = 8
    for _ in range(_PIECES):
        if place + 12 > len(data):
            raise DecodeError(_TRUNCATED)
        length, kind = struct.unpack_from(">I4s", data, place)
        after = place + 8 + length
        if after + 4 > len(data):
            raise DecodeError(_TRUNCATED)
        if zlib.crc32(view[place + 4 : after]) != int.from_bytes(view[after : after + 4]):
            raise DecodeError(f"damaged: the checksum of chunk {kind!r} does not fit its content")
        yield kind, view[place + 8 : after], view[place : after + 4]
        if kind == b"IEND":
            return
        place = after + 4
    raise DecodeError(f"more than {_PIECES} chunks")


def _webp(data: bytes, max_pixels: int) -> Screened:
    """Check the size of a WebP's canvas and read its EXIF orientation.

    libwebp allocates the canvas before it reads a frame.
    """
    kind = data[12:16]
    place = 12
    if kind == b"VP8X":
        # Extended format: canvas width and height minus one, 24 bits each.
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        check_size(width, height, max_pixels)
    elif kind == b"VP8L":
        # Lossless format: width and height minus one, 14 bits each.
        sides = int.from_bytes(data[21:25], "little")
        check_size(1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF), max_pixels)
    elif kind == b"VP8 ":
        # Lossy format: width and height in the lower 14 bits of two words.
        width, height = struct.unpack_from("<HH", data, 26)
        check_size(width & 0x3FFF, height & 0x3FFF, max_pixels)
    for _ in range(_PIECES):
        if place + 8 > len(data):
            return Screened("WEBP", data)
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"EXIF":
            return Screened("WEBP", data, exif_orientation(data[place + 8 : place + 8 + length]))
        # Chunks start at even offsets.
        place += 8 + length + length % 2
    raise DecodeError(f"more than {_PIECES} chunks")


def _tiff(data: bytes, max_pixels: int) -> Screened:
    """Check the tags of a TIFF; Pillow itself applies the orientation."""
    check_tiff(data, max_pixels)
    return Screened("TIFF", data)


def _bmp(data: bytes, max_pixels: int) -> Screened:
    """Check the size of a BMP, and refuse palettes that Pillow misreads."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size >= 40:
        # Width, height, planes, bits per pixel, compression; 1 and 2 are run lengths. Height is negative in files that
        # are stored from top to bottom.
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (colours,) = struct.unpack_from("<I", data, 46)
        check_size(abs(width), abs(height), min(max_pixels, _RLE_PIXELS) if compression in (1, 2) else max_pixels)
        # Pillow reads a file with such a palette as one bit per pixel.
        greys = data[14 + size : 14 + size + 4 * colours]
        if bits > 1 and (greys[:3], greys[4:7]) in ((b"\0\0\0", b""), (b"\0\0\0", b"\xff\xff\xff")) and colours < 3:
            raise DecodeError(f"a BMP of {bits} bits with a palette of black and white alone: store it with 1 bit")
    return Screened("BMP", data)


def _heif(data: bytes, max_pixels: int) -> Screened:
    """Pass the file on unchanged: libheif has its own limits and applies the orientation itself."""
    return Screened("HEIF", data)


_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes, int], Screened]], ...] = (
    ("JPEG", re.compile(rb"\xff\xd8\xff"), _jpeg),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    ("BMP", re.compile(rb"BM"), _bmp),
    ("HEIF", re.compile(rb"....ftyp(heic|heix|heim|heis|mif1|msf1)", re.DOTALL), _heif),
)
