"""What of a stranger's file a decoder may see, judged before any decoder does.

Decoders keep text, profiles and previews in memory, trust sizes that a few bytes state, and take much of what is cut or
damaged for a picture. So JPEG and PNG pass on only what makes pixels, whole and with checksums that fit; the other
formats pass unchanged, within limits.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.exif import exif_orientation
from pipeline.data.tiff_limits import check_tiff
from pipeline.errors import DecodeError

__all__ = ["Screened", "check_size", "has_all_rows", "screen"]

_PIECES = 2**18  # chunks or segments of a file
_SCANS = 100  # of a progressive JPEG: each costs a pass over the whole picture, whatever its length
_RLE_PIXELS = 2**24  # Pillow unpacks BMP's run lengths in Python
_EXIF, _COMMENT, _ADOBE, _FRAMES = 0xE1, 0xFE, 0xEE, (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC))
_SCAN, _END, _TEM, _START = 0xDA, 0xD9, 0x01, 0xD8
_IHDR = struct.Struct(">IIBBBBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# A marker; not a stuffed zero, a restart marker or a filling byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_TRUNCATED = "damaged: truncated, the file ends before its picture does"


@dataclass(frozen=True)
class Screened:
    """A file that may be decoded.

    Attributes:
        format: Pillow's name of it.
        data: what the decoder gets.
        orientation: EXIF's, 1–8, still to be applied.
    """

    format: str
    data: bytes
    orientation: int = 1


def screen(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Screened:
    """Tells the format by content and takes from the file what its decoder needs.

    Raises:
        DecodeError: with the reason, for another format, a file that is cut or damaged, and what would cost more
            than so many pixels may.
        struct.error, IndexError: for a header that is cut.
    """
    if not data:
        raise DecodeError("the file is empty")
    for name, magic, screener in _FORMATS:
        if name in formats and magic.match(data):
            return screener(data, max_pixels)
    # HEIC is an extra, and no surprise where it is missing.
    named = ", ".join(name for name in formats if name != "HEIF")
    raise DecodeError(f"not a {named} file: it begins with {data[:8]!r}")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses what has no pixels, or too many."""
    if width * height > max_pixels:
        raise DecodeError(f"{width}×{height} pixels are more than the limit of {max_pixels}")
    if width < 1 or height < 1:
        raise DecodeError(f"{width}×{height} pixels are no image")


def has_all_rows(png: bytes) -> bool:
    """Whether the compressed rows of a screened PNG are as many as its header says; Pillow leaves the rest black."""
    width, height, bits, colour, _, _, interlaced = _IHDR.unpack_from(png, 16)
    missing = 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * bits * _CHANNELS[colour] + 7) // 8)
    stream = zlib.decompressobj()
    for kind, content, _ in _chunks(png):
        waiting = bytes(content) if kind == b"IDAT" else b""
        while waiting and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(waiting, 2**20))
            waiting = stream.unconsumed_tail
    return missing <= 0


def _jpeg(data: bytes, max_pixels: int) -> Screened:
    """Without comments and application data but Adobe's, which tells colours; and so that missing data show."""
    kept: list[bytes | memoryview] = [data[:2]]
    view, orientation, scans, body, whole = memoryview(data), 1, 0, 0, b""
    frame = channels = 0
    for marker, start, after in _segments(data):
        if marker == _SCAN:
            scans, body = scans + 1, body or start
            # Data that end early are filled up with grey, unless no end marker allows that: then the decoder asks for
            # more. Bits of ones are no code, so these bytes give it no pixels, only its look-ahead. Other kinds than
            # one scan of Huffman codes need their end marker.
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
                frame, channels = marker, data[start + 9]
                height, width = struct.unpack_from(">HH", data, start + 5)
                check_size(width, height, max_pixels)
            kept.append(view[start:after])
    if not scans:
        raise DecodeError("damaged: a JPEG without a picture")
    return Screened("JPEG", b"".join([*kept, view[body:start], whole]), orientation)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, up to the end marker; coded data lie between them."""
    place = 2
    for _ in range(_PIECES):
        found = _MARKER.search(data, place)
        if found is None:
            raise DecodeError(_TRUNCATED)
        start, marker = found.start(), data[found.start() + 1]
        if marker in (_END, _TEM, _START):
            place = start + 2
        else:
            place = start + 2 + int.from_bytes(data[start + 2 : start + 4])
            if place > len(data) or place < start + 4:
                raise DecodeError(_TRUNCATED)
        yield marker, start, place
        if marker == _END:
            return
    raise DecodeError(f"more than {_PIECES} segments")


def _png(data: bytes, max_pixels: int) -> Screened:
    """Without ancillary chunks: text, profiles, animation. Transparency is not used either."""
    kept: list[bytes | memoryview] = [data[:8]]
    orientation, colour = 1, 0
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
        # A capital: critical.
        if not kind[0] & 0x20:
            kept.append(whole)
    if colour == 3 and b"PLTE" not in kinds:
        raise DecodeError("damaged: a palette PNG without a palette")
    return Screened("PNG", b"".join(kept), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, content and whole of each chunk of a PNG, to the last; Pillow looks at no checksum of coded rows."""
    view, place = memoryview(data), 8
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
    """libwebp makes room for the canvas before it looks at a frame."""
    kind, place = data[12:16], 12
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        check_size(width, height, max_pixels)
    elif kind == b"VP8L":
        sides = int.from_bytes(data[21:25], "little")
        check_size(1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF), max_pixels)
    elif kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        check_size(width & 0x3FFF, height & 0x3FFF, max_pixels)
    for _ in range(_PIECES):
        if place + 8 > len(data):
            return Screened("WEBP", data)
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"EXIF":
            return Screened("WEBP", data, exif_orientation(data[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    raise DecodeError(f"more than {_PIECES} chunks")


def _tiff(data: bytes, max_pixels: int) -> Screened:
    """Pillow applies the orientation itself."""
    check_tiff(data, max_pixels)
    return Screened("TIFF", data)


def _bmp(data: bytes, max_pixels: int) -> Screened:
    (size,) = struct.unpack_from("<I", data, 14)
    if size >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (colours,) = struct.unpack_from("<I", data, 46)
        check_size(abs(width), abs(height), min(max_pixels, _RLE_PIXELS) if compression in (1, 2) else max_pixels)
        # Pillow takes these for files of one bit a pixel.
        greys = data[14 + size : 14 + size + 4 * colours]
        if bits > 1 and (greys[:3], greys[4:7]) in ((b"\0\0\0", b""), (b"\0\0\0", b"\xff\xff\xff")) and colours < 3:
            raise DecodeError(f"a BMP of {bits} bits with a palette of black and white alone: store it with 1 bit")
    return Screened("BMP", data)


def _heif(data: bytes, max_pixels: int) -> Screened:
    """Pass the file on: libheif has limits of its own and applies the orientation itself."""
    return Screened("HEIF", data)


_FORMATS: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes, int], Screened]], ...] = (
    ("JPEG", re.compile(rb"\xff\xd8\xff"), _jpeg),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    ("BMP", re.compile(rb"BM"), _bmp),
    ("HEIF", re.compile(rb"....ftyp(heic|heix|heim|heis|mif1|msf1)", re.DOTALL), _heif),
)
