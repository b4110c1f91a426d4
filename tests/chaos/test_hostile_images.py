"""Tests of untrusted images and labels: correct pixels or a DecodeError, in bounded time and memory."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images import decode_image, normalize_decode_error
from pipeline.data.labels import decode_label
from pipeline.data.storage import join
from pipeline.errors import DecodeError
from pipeline.results.tables import Run
from tests.chaos.decoder_process import Decoder, Outcome, decoder
from tests.chaos.hostile import odd_files, refused_files
from tests.chaos.image_files import (
    bmp,
    chunk,
    encode,
    exif,
    grey_tags,
    header,
    jpeg_with,
    picture,
    png,
    seeds,
    summed,
    tiff,
    tiles,
)
from tests.segmentation.support import config_of, run_here, write_inputs
from tests.segmentation.support import picture as scene
from tests.segmentation.support import png as scene_png
from tests.shared import STORAGE, examples, sampled

MAX_PIXELS = 250_000
LONGEST = 320  # longest message in characters
MILLION = 1_000_000
# Memory in bytes that decoding may take, the file included: per pixel by kind, and a constant for any file.
PER_PIXEL = 16
OF_WEBP = 28
OF_ONE_ROW = 22
ANYWAY = 4 * MILLION
EDGES = (0, 1, 2, 7, 8, 16, 127, 255, 256, 4096, 32_767, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@pytest.fixture(scope="module")
def child() -> Iterator[Decoder]:
    with decoder() as running:
        yield running


def assert_safe(outcome: Outcome, max_pixels: int = MAX_PIXELS) -> None:
    """Assert that the outcome has pixels within the limit, or a reason that a table and a page can hold."""
    assert outcome.kind in ("ok", "refused"), outcome
    if outcome.kind == "ok":
        assert 1 <= outcome.shape[0] * outcome.shape[1] <= max_pixels, outcome
    else:
        assert outcome.text.isprintable() and 5 < len(outcome.text) < LONGEST, outcome
        assert "0x7f" not in outcome.text, "an address is another one each time"
        assert "memory" not in outcome.text, outcome


def place(draw: st.DrawFn, data: bytes) -> int:
    """Return a random position, often near the beginning, where the headers are."""
    return min(draw(st.integers(0, 120) | st.integers(0, max(0, len(data) - 1))), max(0, len(data) - 1))


def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    at = place(draw, data)
    return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :] if data else data


def lying(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace a position that may hold a number (a length, a size, a count, an offset) by another number."""
    at = place(draw, data)
    size = draw(st.sampled_from((1, 2, 4)))
    order = draw(st.sampled_from(("little", "big")))
    value = draw(st.sampled_from(EDGES) | st.integers(0, len(data) + 9)) % 256**size
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def without(draw: st.DrawFn, data: bytes) -> bytes:
    at = place(draw, data)
    return data[:at] + data[at + draw(st.integers(1, 400)) :]


def twice(draw: st.DrawFn, data: bytes) -> bytes:
    at = place(draw, data)
    return data[: at + draw(st.integers(1, 400))] + data[at:]


def inserted(draw: st.DrawFn, data: bytes) -> bytes:
    at = place(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[at:]


def spliced(draw: st.DrawFn, data: bytes) -> bytes:
    other = seeds()[draw(st.sampled_from(sorted(seeds())))]
    return data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]


def in_chunk(draw: st.DrawFn, data: bytes) -> bytes:
    """Change one chunk of a PNG, with its length and checksum correct; image data are changed before compression."""
    found = []
    place = 8
    while place + 12 <= len(data) and data.startswith(b"\x89PNG"):
        (length,) = struct.unpack_from(">I", data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not found:
        return data
    chosen = draw(st.integers(0, len(found) - 1))
    kind, content = found[chosen]
    change = draw(st.sampled_from(CHANGES[:-1]))
    if kind == b"IDAT":
        raw = zlib.decompressobj()
        try:
            content = zlib.compress(change(draw, raw.decompress(content, 2**16)))
        except zlib.error:
            content = change(draw, content)
    else:
        content = change(draw, content)
    found[chosen] = kind, content
    return data[:8] + b"".join(chunk(*each) for each in found)


CHANGES = (flipped, flipped, lying, lying, lying, cut, without, twice, inserted, spliced)


@st.composite
def mutants(draw: st.DrawFn, kinds: tuple[str, ...]) -> bytes:
    """Draw a valid file with one to four changes; the checksums of a PNG are mostly corrected afterwards."""
    data = seeds()[draw(st.sampled_from(sorted(name for name in seeds() if name.startswith(kinds))))]
    changes = (*CHANGES, *[in_chunk] * 10) if data.startswith(b"\x89PNG") else CHANGES
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from(changes))(draw, data)
    return summed(data) if data.startswith(b"\x89PNG") and draw(st.integers(0, 5)) else data


def bounded(count: int) -> settings:
    return settings(max_examples=examples(count), derandomize=True, database=None)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_mutants_are_pictures_or_refused(child: Decoder, kind: str) -> None:
    @bounded(600)
    @given(mutants((kind,)))
    def check(data: bytes) -> None:
        assert_safe(child.image(data, MAX_PIXELS))

    check()


def test_mutants_are_labels_or_refused(child: Decoder) -> None:
    @bounded(600)
    @given(mutants(("png", "tiff", "bmp")))
    def check(data: bytes) -> None:
        assert_safe(child.label(data, MAX_PIXELS))

    check()


def test_attacks_are_refused_with_the_reason_and_cost_nothing(child: Decoder) -> None:
    for name, (data, reason) in refused_files().items():
        outcome = child.image(data, MILLION, alone=True)
        assert_safe(outcome, MILLION)
        assert outcome.kind == "refused" and re.search(reason, outcome.text), (name, outcome)
        assert outcome.seconds < 2 and outcome.grown < 2 * ANYWAY + len(data), (name, outcome)
        assert child.image(data, MILLION).text == outcome.text, f"{name}: another message each time"
        assert child.label(data, MILLION).kind == "refused", name


def test_oddities_are_pictures_and_cost_what_pictures_cost(child: Decoder) -> None:
    for name, (data, size) in odd_files().items():
        outcome = child.image(data, MILLION, alone=True)
        assert (outcome.kind, outcome.shape) == ("ok", (*size, 3)), (name, outcome)
        assert outcome.seconds < 2, (name, outcome)
        assert outcome.grown < 2 * ANYWAY + 2 * len(data) + OF_WEBP * size[0] * size[1], (name, outcome)


def large_files() -> dict[str, bytes]:
    """Return a million pixels of noise in every kind of file whose decoder needs memory of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 4), dtype=np.uint8)
    rgb = Image.fromarray(noise[:, :, :3].copy())
    rgba = Image.fromarray(noise)
    deep = b"".join(b"\0" + noise.tobytes()[8000 * (row // 2) :][:8000] for row in range(1000))
    return {
        "jpeg": encode(rgb, "JPEG"),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True, subsampling=0),
        "jpeg cmyk progressive": encode(rgb.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
        "jpeg turned": encode(rgb, "JPEG", exif=b"Exif\0\0" + exif(6)),
        "png": encode(rgb, "PNG"),
        "png of 16 bits": png(header(1000, 1000, 16, 6), deep),
        "png of one row": encode(Image.fromarray(noise.reshape(1, -1, 4)), "PNG"),
        "webp": encode(rgb, "WEBP"),
        "webp alpha": encode(rgba, "WEBP", lossless=True, method=0),
        "tiff": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff of one tile": tiles(1000, 1000, 1008, [zlib.compress(noise.tobytes()[: 1008 * 1008])], 8),
        "bmp": encode(rgba, "BMP"),
    }


def test_memory_is_a_stated_multiple_of_the_pixels(child: Decoder) -> None:
    for name, data in large_files().items():
        outcome = child.image(data, MILLION, alone=True)
        assert outcome.kind == "ok", (name, outcome)
        most = OF_WEBP if "webp" in name else OF_ONE_ROW if "one row" in name else PER_PIXEL
        # The growth must be at least the size of the pixels, or the measurement is wrong.
        assert 3 * MILLION < outcome.grown < most * MILLION + ANYWAY, (name, outcome)
        assert child.image(data, MILLION - 1, alone=True).grown < ANYWAY + len(data), name


def test_what_costs_more_than_pixels_has_a_limit_of_its_own(child: Decoder) -> None:
    runs = bmp(5000, 5000, b"\1\5\0\0" * 5000, 8, 1)
    assert "more than the limit of 16777216" in child.image(runs, 100 * MILLION).text
    assert "bytes are more than" in child.image(b"BM" + bytes(76 * MILLION), MILLION).text


def test_what_is_cut_is_refused_or_whole(child: Decoder) -> None:
    """Some formats may end with bytes without meaning or with a second picture; JPEG and PNG state their end."""
    for name, data in seeds().items():
        whole = child.image(data, MAX_PIXELS)
        for length in {*range(0, len(data), max(1, len(data) // 25)), *range(len(data) - 25, len(data))}:
            outcome = child.image(data[:length], MAX_PIXELS)
            strict = name.startswith(("jpeg", "png")) and name != "jpeg mpo"
            assert outcome.kind == "refused" or (outcome.pixels == whole.pixels and not strict), (name, length, outcome)


def test_jpegs_whose_data_end_early_are_no_half_grey_pictures(child: Decoder) -> None:
    for name in ("jpeg", "jpeg 4:4:4 restarts", "jpeg grey", "jpeg cmyk", "jpeg exif icc"):
        data = seeds()[name]
        first = data.rindex(b"\xff\xda") + 14
        for lost in (len(data) // 20, len(data) // 7, len(data) // 3, len(data) - first - 9):
            ended = data[: len(data) - 2 - lost].rstrip(b"\xff") + b"\xff\xd9"
            outcome = child.image(ended, MAX_PIXELS)
            assert outcome.kind == "refused" and "truncated" in outcome.text, (name, lost, outcome)


def test_a_flipped_bit_of_a_png_is_found(child: Decoder) -> None:
    for name in ("png 2 8", "png 3 4", "png texts", "png interlaced"):
        data = seeds()[name]
        for place in sampled(range(0, len(data), 3), 60):
            changed = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
            assert child.image(changed, MAX_PIXELS).kind == "refused", (name, place)


def test_damaged_files_leave_no_memory_behind(child: Decoder) -> None:
    """Memory does not grow over hundreds of damaged and whole files in one process."""
    rng = np.random.default_rng(5)
    files = list(seeds().values())
    for data in seeds().values():
        for _ in range(7):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                damaged[place] ^= int(rng.integers(1, 256))
            files.append(summed(bytes(damaged)) if data.startswith(b"\x89PNG") else bytes(damaged))
    for data in files:
        child.image(data, MAX_PIXELS)
    before = child.resident()
    for number in range(examples(2000)):
        assert child.image(files[number % len(files)], MAX_PIXELS).kind in ("ok", "refused")
    assert child.resident() - before < 2 * MILLION


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_of_every_format(order: str) -> None:
    rgb = picture()
    expected = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2), 8: lambda p: np.rot90(p), 9: lambda p: p, 0: lambda p: p,
    }  # fmt: skip
    for orientation, turn in expected.items():
        block = exif(orientation, order=order)
        files = {
            "jpeg": (jpeg_with(seeds()["jpeg"], (0xE1, b"Exif\0\0" + block)), seeds()["jpeg"]),
            "png": (seeds()["png 2 8"][:33] + chunk(b"eXIf", block) + seeds()["png 2 8"][33:], seeds()["png 2 8"]),
            "webp": (encode(rgb, "WEBP", lossless=True, exif=block), encode(rgb, "WEBP", lossless=True)),
            "tiff": (encode(rgb, "TIFF", tiffinfo={274: orientation}), encode(rgb, "TIFF")),
        }
        for name, (turned, plain) in files.items():
            np.testing.assert_array_equal(decode_image(turned), turn(decode_image(plain)), f"{name} {orientation}")


def test_an_inverted_cmyk_jpeg_has_its_colours() -> None:
    for name in ("jpeg cmyk", "jpeg cmyk progressive"):
        assert b"Adobe" in seeds()[name]
        assert np.abs(decode_image(seeds()[name]).astype(int) - np.asarray(picture())).mean() < 8


def test_of_animations_and_pages_the_first_counts() -> None:
    for name in ("png animated", "tiff pages", "jpeg mpo", "webp animated"):
        apart = np.abs(decode_image(seeds()[name]).astype(int) - np.asarray(picture())).mean()
        assert apart < 8, name


def test_labels_are_values_in_every_depth() -> None:
    ids = np.array([[0, 1, 2, 3]], np.uint8)
    packed = {1: b"\x50", 2: b"\x1b", 4: b"\x01\x23", 8: bytes(range(4))}
    palette = chunk(b"PLTE", bytes(range(12)))
    for bits in (2, 4, 8):
        for colour in (0, 3):
            file = png(header(4, 1, bits, colour), b"\0" + packed[bits], palette if colour == 3 else b"")
            np.testing.assert_array_equal(decode_label(file, 4), ids, f"png {colour} {bits}")
        for white in (0, 1):
            tags = {**grey_tags(4, 1, len(packed[bits])), 258: (3, 1, bits), 262: (3, 1, white)}
            np.testing.assert_array_equal(decode_label(tiff(tags, packed[bits]), 4), ids, f"tiff {white} {bits}")
    file = png(header(4, 1, 8, 0), b"\0" + packed[8], chunk(b"eXIf", exif(2)))
    np.testing.assert_array_equal(decode_label(file, 4), ids[:, ::-1], "a label is turned as its image is")


def test_one_of_each_in_a_run(tmp_path: Path) -> None:
    """A run has correct masks for all pictures, and a row with stage and reason for each bad file.

    Masks of good pictures are the same as in a run without bad files beside them.
    """
    inputs = write_inputs(str(tmp_path), 0, labelled=False)
    refused = {f"{name}.png": file for name, file in refused_files().items()}
    # Leave out pictures of extreme length, which would take the network long, and most valid files, tested above.
    odd = {f"{name}.jpg": file for name, file in odd_files().items() if "65" not in name and "163" not in name}
    odd = {name: file for name, file in odd.items() if "valid" not in name or "progressive" in name or "anim" in name}
    for name, (data, _) in {**refused, **odd}.items():
        STORAGE.write(join(inputs.root, "images", name), data)
    batch_by_shape = {f"{place} neighbour.png": scene_png(scene(place)) for place in (0, 5, 9)}
    for name, data in batch_by_shape.items():
        STORAGE.write(join(inputs.root, "images", name), data)
        STORAGE.write(join(inputs.root, "alone", name), data)
    settings_of_run = {"labels": None, "max_error_fraction": 1.0, "shard_images": 16, "max_pixels": MILLION}
    run_here(config_of(inputs, **settings_of_run))
    changes = {**settings_of_run, "images": join(inputs.root, "alone"), "output": join(inputs.root, "out alone")}
    run_here(config_of(inputs, **changes))
    run = Run(join(inputs.root, "out"))
    alone = Run(join(inputs.root, "out alone"))
    rows = {Path(row["image_uri"]).name: row for row in run.predictions().to_dict("records")}
    assert rows.keys() == {*refused, *odd, *batch_by_shape} and len(run.errors()) == len(refused)
    for name, (_, reason) in refused.items():
        row = rows[name]
        assert (row["status"], row["error_stage"], row["error_type"]) == ("error", "decode", "DecodeError"), name
        assert re.search(reason, row["error_message"]) and row["error_message"].isprintable(), (name, row)
    for name, (_, size) in odd.items():
        assert rows[name]["status"] == "ok" and (rows[name]["height"], rows[name]["width"]) == size, (name, rows[name])
        assert run.mask(rows[name]["image_uri"]).shape == size
    for uri, mask in alone.masks():
        together = run.mask(uri.replace("/alone/", "/images/"))
        assert hashlib.sha256(together).digest() == hashlib.sha256(mask).digest()


def test_a_reason_is_one_short_printable_line() -> None:
    for error in (ValueError("\x1b[31m\n\0" + "a" * 10_000 + "\ud800\u202e"), KeyError(b"\xff" * 999), OSError()):
        with pytest.raises(DecodeError) as refused, normalize_decode_error():
            raise error
        assert str(refused.value).isprintable() and len(str(refused.value)) < LONGEST
    with pytest.raises(DecodeError, match="not enough memory"), normalize_decode_error():
        raise MemoryError


def test_decoders_say_nothing_that_a_log_cannot_hold(child: Decoder) -> None:
    """The library libtiff writes a line for each damaged strip, but never bytes of the file."""
    for line in child.noise().decode("ascii").splitlines():
        assert line.isprintable() and len(line) < 200, line
