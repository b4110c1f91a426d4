"""Builders of image files of every accepted kind, byte by byte where no library writes them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

HEIGHT = 41
WIDTH = 30
Tag = tuple[int, int, bytes | int]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a file as Pillow writes it."""
    sink = io.BytesIO()
    # Save a copy: an image keeps the settings of one format, which can break the writer of another.
    image.copy().save(sink, kind, **options)
    return sink.getvalue()


@cache
def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image.Image:
    """Return an image of smooth colors with some noise, so that its files have more than one block, row and code."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (4, 3, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8))


def exif(orientation: int, *, order: str = "<", count: int = 1, following: int = 0) -> bytes:
    """Return an EXIF block of one tag."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, count, orientation, 0, following)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png(head: bytes, rows: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG of `rows`, filter bytes included, with chunks before and after them."""
    data = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + before + data + after + chunk(b"IEND")


def rows(width: int, height: int, value: int = 85, channels: int = 3) -> bytes:
    """Return the rows of a PNG whose samples all have the same value, filter bytes included."""
    return (b"\0" + bytes([value]) * width * channels) * height


def summed(data: bytes) -> bytes:
    """Return a PNG with corrected checksums, as far as its bytes form chunks."""
    made = data[:8]
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        content = data[place + 4 : place + 8 + length]
        made += data[place : place + 4] + content + struct.pack(">I", zlib.crc32(content))
        place += 12 + length
    return made + data[place:]


def interlaced() -> bytes:
    """Return an interlaced PNG, which Pillow cannot write."""
    pixels = np.asarray(picture())
    passes = b""
    for left, top, right, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)):
        passes += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::right])
    passes += b"".join(b"\0" + row.tobytes() for row in pixels[1::2])
    return png(header(WIDTH, HEIGHT, interlaced=1), passes)


def jpeg_with(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Return a JPEG with more segments (marker, content) at its beginning."""
    parts = [struct.pack(">BBH", 255, marker, len(content) + 2) + content for marker, content in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def tiff(tags: Mapping[int, Tag], body: bytes = b"", *, big: bool = False) -> bytes:
    """Return a TIFF file of one directory.

    Args:
        tags: Type, count and value by tag. Bytes that do not fit into the entry are written after the directory; an
            integer is written into the entry, and -1 becomes the position of `body`.
        body: Bytes at the end of the file.
        big: Whether to write BigTIFF.
    """
    number, entry, room = ("<Q", "<HHQ", 8) if big else ("<I", "<HHI", 4)
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    start = len(head) + (8 if big else 2) + len(tags) * (struct.calcsize(entry) + room) + room
    values = [value for _, (_, _, value) in sorted(tags.items())]
    behind = b"".join(value for value in values if isinstance(value, bytes) and len(value) > room)
    place = start
    entries = b""
    for tag, (kind, count, value) in sorted(tags.items()):
        if isinstance(value, int):
            value = struct.pack(number, start + len(behind) if value == -1 else value)
        elif len(value) > room:
            value, place = struct.pack(number, place), place + len(value)
        entries += struct.pack(entry, tag, kind, count) + value.ljust(room, b"\0")
    return head + struct.pack("<Q" if big else "<H", len(tags)) + entries + struct.pack(number, 0) + behind + body


def grey_tags(width: int, height: int, length: int, compression: int = 1) -> dict[int, Tag]:
    """Return the tags of an image of one channel and one strip."""
    return {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, compression),
        262: (3, 1, 1),
        273: (4, 1, -1),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, length),
    }


def tiles(width: int, height: int, side: int, bodies: list[bytes], compression: int) -> bytes:
    """Return a TIFF of one channel in tiles."""
    tags = {tag: value for tag, value in grey_tags(width, height, 0, compression).items() if tag not in (273, 278, 279)}
    lengths = struct.pack(f"<{len(bodies)}I", *map(len, bodies))
    tags |= {322: (4, 1, side), 323: (4, 1, side), 325: (4, len(bodies), lengths)}
    first = len(tiff({**tags, 324: (4, len(bodies), bytes(len(lengths)))}))
    places = [first + sum(map(len, bodies[:index])) for index in range(len(bodies))]
    tags[324] = (4, len(bodies), struct.pack(f"<{len(places)}I", *places))
    return tiff(tags, b"".join(bodies))


def bmp(
    width: int, height: int, body: bytes, bits: int = 8, compression: int = 0, palette: bytes | None = None
) -> bytes:
    """Return a BMP file; a negative height means that rows are stored from top to bottom."""
    if palette is None:
        palette = bytes(channel for n in range(2**bits) for channel in (n, 255 - n, n // 2, 0)) if bits <= 8 else b""
    offset = 54 + len(palette)
    sizes = (40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", offset + len(body), 0, 0, offset, *sizes) + palette + body


def _rle(make: Callable[[int], bytes]) -> bytes:
    return b"".join(make(row) + b"\0\0" for row in range(HEIGHT)) + b"\0\1"


@cache
def seeds() -> dict[str, bytes]:
    """Return valid files of every accepted kind by name, all of HEIGHT × WIDTH pixels."""
    rgb = picture()
    grey = rgb.convert("L")
    noise = np.random.default_rng(3)
    profile = noise.bytes(3000)
    made = {
        "jpeg": encode(rgb, "JPEG", quality=90),
        "jpeg 4:4:4 restarts": encode(rgb, "JPEG", subsampling=0, restart_marker_rows=1),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True, quality=90),
        "jpeg grey": encode(grey, "JPEG"),
        "jpeg cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "jpeg cmyk progressive": encode(rgb.convert("CMYK"), "JPEG", progressive=True),
        "jpeg exif icc": encode(rgb, "JPEG", exif=b"Exif\0\0" + exif(1), icc_profile=profile, comment="hello"),
        "jpeg mpo": encode(rgb, "MPO", save_all=True, append_images=[picture(seed=1).copy()]),
        "png interlaced": interlaced(),
        "png palette transparent": encode(rgb.quantize(40), "PNG", transparency=bytes(range(40))),
        "png texts": png(
            header(WIDTH, HEIGHT),
            rows(WIDTH, HEIGHT),
            chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))
            + chunk(b"tEXt", b"Author\0me")
            + chunk(b"pHYs", bytes(9)),
            chunk(b"zTXt", b"k\0\0" + zlib.compress(b"text"))
            + chunk(b"iTXt", b"k\0\0\0\0\0text")
            + chunk(b"eXIf", exif(1)),
        ),
        "png animated": encode(rgb, "PNG", save_all=True, append_images=[picture(seed=1).copy()]),
        "webp lossy": encode(rgb, "WEBP", quality=70),
        "webp lossless": encode(rgb, "WEBP", lossless=True),
        "webp alpha": encode(rgb.convert("RGBA"), "WEBP", exif=exif(1), icc_profile=profile),
        "webp animated": encode(rgb, "WEBP", save_all=True, append_images=[picture(seed=1).copy()]),
        "tiff cmyk": encode(rgb.convert("CMYK"), "TIFF"),
        "tiff bits group4": encode(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff 16 bits": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "TIFF"),
        "tiff palette": encode(rgb.quantize(40), "TIFF", compression="tiff_lzw"),
        "tiff pages": encode(rgb, "TIFF", save_all=True, append_images=[picture(seed=1).copy()]),
        "tiff big": encode(rgb, "TIFF", big_tiff=True),
        "tiff tiles": tiles(WIDTH, HEIGHT, 16, [zlib.compress(noise.bytes(256)) for _ in range(6)], 8),
        "bmp": encode(rgb, "BMP"),
        "bmp 32 bits": encode(rgb.convert("RGBA"), "BMP"),
        "bmp palette": encode(rgb.quantize(40), "BMP"),
        "bmp one bit": encode(rgb.convert("1"), "BMP"),
        "bmp run lengths": bmp(WIDTH, HEIGHT, _rle(lambda row: bytes([20, row, 0, 10, *range(10)])), 8, 1),
        "bmp run lengths 4": bmp(WIDTH, HEIGHT, _rle(lambda row: bytes([20, row % 16 * 17, 10, 0x21])), 4, 2),
        "bmp top-down": bmp(WIDTH, -HEIGHT, noise.bytes(32 * HEIGHT)),
        "bmp bitfields": bmp(WIDTH, HEIGHT, noise.bytes(60 * HEIGHT), 16, 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F)),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"):
        made[f"tiff {compression}"] = encode(rgb, "TIFF", compression=compression)
    for colour, channels in ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4)):
        for bits in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16)):
            palette = chunk(b"PLTE", noise.bytes(3 * 2**bits)) if colour == 3 else b""
            lines = [b"\0" + noise.bytes((WIDTH * channels * bits + 7) // 8) for _ in range(HEIGHT)]
            made[f"png {colour} {bits}"] = png(header(WIDTH, HEIGHT, bits, colour), b"".join(lines), palette)
    return made
