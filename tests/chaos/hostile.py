"""Hostile image files, made from valid ones."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from tests.chaos.image_files import (
    HEIGHT,
    WIDTH,
    Tag,
    bmp,
    chunk,
    encode,
    exif,
    grey_tags,
    header,
    jpeg_with,
    picture,
    png,
    rows,
    seeds,
    summed,
    tiff,
)


def _scan_bomb() -> bytes:
    """Return a small progressive JPEG whose last scan occurs five thousand times."""
    data = encode(Image.new("L", (1000, 1000), 128), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 5000 + data[-2:]


def _claiming(name: str, old: bytes, new: bytes) -> bytes:
    """Return a valid file whose bytes that state the size are replaced."""
    data = seeds()[name]
    assert old in data, name
    return summed(data.replace(old, new, 1)) if name.startswith("png") else data.replace(old, new, 1)


def _canvas(side: int) -> bytes:
    data = seeds()["webp animated"]
    assert data[12:16] == b"VP8X"
    return data[:24] + (side - 1).to_bytes(3, "little") * 2 + data[30:]


def _cut_tail(jpeg: bytes, part: float) -> bytes:
    """Return a JPEG with the first part of its coded data, followed by an end marker."""
    start = jpeg.index(b"\xff\xda")
    return jpeg[: start + int(part * (len(jpeg) - start))].rstrip(b"\xff") + b"\xff\xd9"


@cache
def refused_files() -> dict[str, tuple[bytes, str]]:
    """Return by name: a file, and text that the reason for its refusal must contain."""
    rgb = picture()
    good = seeds()
    foreign = "not a JPEG, PNG, WEBP, TIFF, BMP file: it begins with"
    large = "more than the limit of"
    ends = "truncated"
    jpeg = good["jpeg"]
    deep = zlib.compress(bytes(64 * 2**20), 9)
    blob = bytes(100_000)
    flip = len(good["png 2 8"]) // 2
    shared: dict[int, Tag] = {40_000 + n: (1, 90_000, 500) for n in range(1000)}
    many = struct.pack("<I", 8) * 200_000
    tags = grey_tags(WIDTH, HEIGHT, WIDTH * HEIGHT)
    return {
        "nothing": (b"", "empty"),
        "zeros": (bytes(4096), foreign),
        "html.jpg": (b"<!DOCTYPE html><html><body>403 Forbidden</body></html>", foreign),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", foreign),
        "gif": (encode(rgb, "GIF"), foreign),
        "gif animated": (encode(rgb, "GIF", save_all=True, append_images=[picture(seed=1).copy()]), foreign),
        "gifar": (encode(rgb, "GIF") + b"PK\x03\x04" + bytes(99), foreign),
        "jpeg2000": (encode(rgb, "JPEG2000"), foreign),
        "ico": (encode(rgb, "ICO"), foreign),
        "tga": (encode(rgb, "TGA"), foreign),
        "avif": (encode(rgb, "AVIF"), foreign),
        "eps": (encode(rgb, "EPS"), foreign),
        "pdf": (encode(rgb, "PDF"), foreign),
        "pdf before jpeg": (b"%PDF-1.4\n" + jpeg, foreign),
        "psd": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(300), foreign),
        "fits": (b"SIMPLE  =                    T".ljust(2880), foreign),
        "jpeg of 65500 squared": (
            _claiming("jpeg", struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 65_500, 65_500)),
            large,
        ),
        "png of 60000 squared": (
            _claiming("png 2 8", struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", 60_000, 60_000)),
            large,
        ),
        "png of 2**31 - 1 squared": (
            _claiming("png 2 8", struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", 2**31 - 1, 2**31 - 1)),
            large,
        ),
        "png of no width": (_claiming("png 2 8", struct.pack(">I", WIDTH), bytes(4)), "no image"),
        "webp canvas of 13000 squared": (_canvas(13_000), large),
        "tiff of 60000 squared": (tiff({**tags, 256: (4, 1, 60_000), 257: (4, 1, 60_000)}, blob), large),
        "bmp of 30000 squared": (bmp(30_000, 30_000, blob, 24), large),
        "tiff tile of 16384 squared": (
            tiff(
                {
                    **grey_tags(1, 1, 0, 8),
                    322: (4, 1, 16_384),
                    323: (4, 1, 16_384),
                    324: (4, 1, -1),
                    325: (4, 1, len(deep)),
                },
                deep,
            ),
            "tiles of 16384",
        ),
        "tiff tags that share bytes": (tiff({**tags, **shared}, blob), "claim more than"),
        "tiff tags that share bytes, deflated": (
            tiff({**grey_tags(WIDTH, HEIGHT, len(deep), 8), **shared}, deep + blob),
            "claim more than",
        ),
        "tiff of 200000 strips": (
            tiff({**tags, 273: (4, 200_000, many), 279: (4, 200_000, many)}),
            "more than 262144 values",
        ),
        "tiff count beyond the file": (tiff({**tags, 305: (2, 2**31, 8)}, blob), "claim more than"),
        "tiff offset beyond the file": (tiff({**tags, 273: (4, 1, 2**31)}, blob), ends),
        "tiff directory beyond the file": (b"II*\0" + struct.pack("<I", 2**31) + blob, "header"),
        "tiff of 2**60 tags": (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(100), "header"),
        "tiff of 2**60 values": (tiff({**tags, 258: (3, 2**60, 16)}, blob, big=True), "claim more than"),
        "tiff of floats": (encode(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)), "TIFF"), "mode F"),
        "tiff of 32 bits": (encode(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.int32)), "TIFF"), "mode I "),
        "tiff lzw cut": (good["tiff tiff_lzw"][:-600], ""),
        "jpeg of five thousand scans": (_scan_bomb(), "more than 100 scans"),
        "jpeg of 300000 segments": (jpeg[:2] + b"\xff\xe5\0\2" * 300_000 + jpeg[2:], "segments"),
        "jpeg cut": (jpeg[: len(jpeg) // 2], ends),
        "jpeg without its end": (jpeg[:-2], ends),
        "jpeg half, with an end marker": (_cut_tail(jpeg, 0.5), ends),
        "jpeg progressive cut": (good["jpeg progressive"][:-100], ends),
        "jpeg header alone": (jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", "without a picture"),
        "png of 300000 chunks": (png(header(WIDTH, HEIGHT), rows(WIDTH, HEIGHT), chunk(b"abCd") * 300_000), "chunks"),
        "png cut": (good["png 2 8"][:-300], ends),
        "png without its end": (good["png 2 8"][:-12], ends),
        "png flipped bit": (
            good["png 2 8"][:flip] + bytes([good["png 2 8"][flip] ^ 1]) + good["png 2 8"][flip + 1 :],
            "checksum",
        ),
        "png two headers": (png(header(WIDTH, HEIGHT) + header(9, 9), rows(WIDTH, HEIGHT)), "one header"),
        "png rows missing": (png(header(WIDTH, HEIGHT), rows(WIDTH, HEIGHT - 1)), "end before"),
        "png interlaced, rows missing": (png(header(WIDTH, HEIGHT, interlaced=1), rows(WIDTH, 9)), "damaged"),
        "png without a palette": (png(header(WIDTH, HEIGHT, colour=3), rows(WIDTH, HEIGHT, 1, 1)), "palette"),
        "webp cut": (good["webp lossless"][:-300], ""),
        "bmp cut": (good["bmp"][:-300], ends),
        "bmp of 8 bits in black and white": (
            bmp(WIDTH, HEIGHT, bytes(32 * HEIGHT), palette=b"\0\0\0\0\xff\xff\xff\0"),
            "black and white",
        ),
    }


@cache
def odd_files() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Return by name: a valid picture that looks like an attack or is a rarity, and its height and width."""
    rgb = picture()
    good = seeds()
    size = (HEIGHT, WIDTH)
    plain = (header(WIDTH, HEIGHT), rows(WIDTH, HEIGHT))
    bomb = zlib.compress(b"a" * 50_000_000, 9)
    jpeg = good["jpeg"]
    tags = grey_tags(WIDTH, HEIGHT, WIDTH * HEIGHT)
    text = zlib.compress(b"a" * (2**20 - 1), 9)
    grey = bytes(range(WIDTH)) * HEIGHT
    exifs = {
        "loop": exif(1, following=8),
        "a giant count": exif(6, count=2**31),
        "garbage": b"II*\0" + b"\xff" * 90,
        "a cut directory": exif(6)[:12],
        "many tags": b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + struct.pack("<HHII", 0x9999, 7, 60_000, 8) * 5000,
    }
    looped = tiff(tags, grey)
    end = 10 + 12 * len(tags)
    return {
        "1 × 1": (encode(Image.new("RGB", (1, 1)), "PNG"), (1, 1)),
        "png of 65535 columns": (encode(picture(1, 65_535), "PNG"), (1, 65_535)),
        "png of 65535 rows": (encode(picture(65_535, 1), "PNG"), (65_535, 1)),
        "jpeg of 65500 columns": (encode(picture(1, 65_500), "JPEG"), (1, 65_500)),
        "jpeg of 65500 rows": (encode(picture(65_500, 1), "JPEG"), (65_500, 1)),
        "bmp of 65535 columns": (encode(picture(1, 65_535), "BMP"), (1, 65_535)),
        "webp of 16383 rows": (encode(picture(16_383, 1), "WEBP"), (16_383, 1)),
        "tiff of 65535 rows": (encode(picture(65_535, 1), "TIFF", compression="tiff_lzw"), (65_535, 1)),
        "jpeg and zip": (jpeg + b"PK\x03\x04" + bytes(999), size),
        "png and more": (good["png 2 8"] + b"\xff\xd9<?php evil(); ?>" + bytes(999), size),
        "png with zTXt of 50 MB": (png(*plain, chunk(b"zTXt", b"k\0\0" + bomb)), size),
        "png with iTXt of 50 MB": (png(*plain, chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)), size),
        "png with a profile of 50 MB": (png(*plain, chunk(b"iCCP", b"k\0\0" + bomb)), size),
        "png with 60 texts of 1 MB": (
            png(*plain, b"".join(chunk(b"zTXt", b"%d\0\0" % n + text) for n in range(60))),
            size,
        ),
        "png with rows of 50 MB": (png(header(WIDTH, HEIGHT), b"\0" * 50_000_000), size),
        "png with texts for Pillow": (
            png(
                *plain,
                b"".join(chunk(b"tEXt", key + b"\0x") for key in (b"bbox", b"interlace", b"transparency", b"exif")),
            ),
            size,
        ),
        "png with a broken profile": (png(*plain, chunk(b"iCCP", b"k\0\0not zlib")), size),
        "jpeg with a broken profile": (jpeg_with(jpeg, (0xE2, b"ICC_PROFILE\0\x01\x05" + b"\xff" * 99)), size),
        "jpeg and five million zeros": (jpeg[:20] + bytes(5_000_000) + jpeg[20:], size),
        "jpeg with a megabyte of comments": (jpeg_with(jpeg, *[(0xFE, bytes(65_000))] * 16), size),
        "tiff directory loop": (looped[:end] + struct.pack("<I", 8) + looped[end + 4 :], size),
        "tiff Exif loop": (tiff({**tags, 34665: (4, 1, 8), 330: (4, 1, 8)}, grey), size),
        "tiff strip of 50 MB": (tiff(grey_tags(WIDTH, HEIGHT, len(bomb), 8), bomb), size),
        **{
            f"jpeg, EXIF with {name}": (jpeg_with(jpeg, (0xE1, b"Exif\0\0" + block)), size)
            for name, block in exifs.items()
        },
        **{f"png, EXIF with {name}": (png(*plain, chunk(b"eXIf", block)), size) for name, block in exifs.items()},
        **{f"webp, EXIF with {name}": (encode(rgb, "WEBP", exif=block), size) for name, block in exifs.items()},
        **{f"valid: {name}": (data, size) for name, data in good.items()},
    }
