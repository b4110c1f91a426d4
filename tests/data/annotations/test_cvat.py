"""Tests of CVAT's exports: color masks, folders and .zip files."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.annotations import cvat
from pipeline.errors import ConfigError
from tests.data.annotations.support import (
    FILES,
    HEIGHT,
    WIDTH,
    coco,
    folder_content,
    paint,
    read_classes_csv,
    read_png,
    write_json,
    write_zip,
)

EXPORT = FILES / "segmentation_mask"
# Header and lines in the form that CVAT documents and writes.
LABELMAP = b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:42,125,209::\nroad:250,50,83::\n"
COLORS = np.array([(0, 0, 0), (42, 125, 209), (250, 50, 83)], np.uint8)


def png(pixels: NDArray[np.uint8], mode: str | None = None) -> bytes:
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(sink, "PNG")
    return sink.getvalue()


def mask_files(ids: NDArray[np.integer], name: str = "a.png") -> dict[str, bytes]:
    return {"labelmap.txt": LABELMAP, f"SegmentationClass/{name}": png(COLORS[ids])}


IDS = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))


def test_masks_of_datumaro_are_painted(tmp_path: Path) -> None:
    """CVAT exports this format with datumaro.

    The fixture is what its `voc_segmentation` wrote of

        items = [DatasetItem(id="a/one", subset="default", media=image, annotations=[
                     Mask(m, label=2, id=1, group=1),
                     Mask(np.roll(m, (3, 5), (0, 1)), label=1, id=2, group=2, z_order=1)]), …]
        label_map = {"background": [(0, 0, 0), [], []], "car": [(42, 125, 209), [], []], "road": [(250, 50, 83), …]}
        dataset.export(folder, "voc_segmentation", apply_colormap=True, label_map=label_map)

    with m[2:9, 3:11] without m[4:6, 5:7]; `two` shows a car everywhere but on m.
    """
    assert (EXPORT / "labelmap.txt").read_bytes() == LABELMAP
    m = np.zeros((HEIGHT, WIDTH), bool)
    m[2:9, 3:11] = True
    m[4:6, 5:7] = False
    one = np.where(m, 2, 0)
    one[np.roll(m, (3, 5), (0, 1))] = 1
    files = folder_content(EXPORT)
    nested = {f"task/{name}": data for name, data in files.items()} | {"__MACOSX/labelmap.txt": b"x"}
    for source in (EXPORT, write_zip(tmp_path / "x.zip", files), write_zip(tmp_path / "y.zip", nested)):
        output = tmp_path / f"out-{source.name}"
        painted = paint(source, output)
        assert read_png(output, "a/one").tolist() == one.tolist()
        assert read_png(output, "two").tolist() == np.where(m, 0, 1).tolist()
        assert read_classes_csv(output) == ["0,background,0,0,0", "1,car,42,125,209", "2,road,250,50,83"]
        assert painted.images == 2 and painted.unlocated


def test_uncovered_pixels_of_masks_have_the_color_of_background(tmp_path: Path) -> None:
    painted = paint(write_zip(tmp_path / "x.zip", mask_files(IDS)), tmp_path, uncovered="ignore")
    assert read_png(tmp_path, "a").tolist() == np.where(IDS == 0, 255, IDS).tolist()
    assert read_classes_csv(tmp_path) == ["1,car,42,125,209", "2,road,250,50,83"]
    assert painted.void == (IDS == 0).sum() and set(painted.pixels) == {"car", "road"}


def test_palettes_and_alpha_give_the_same_labels(tmp_path: Path) -> None:
    palette = Image.fromarray(np.flipud(np.arange(3, dtype=np.uint8))[IDS])
    palette = palette.convert("P")
    palette.putpalette(COLORS[::-1].ravel().tolist())
    sink = io.BytesIO()
    palette.save(sink, "PNG")
    alpha = np.dstack([COLORS[IDS], np.zeros((HEIGHT, WIDTH), np.uint8)])
    names = {"p": sink.getvalue(), "rgba": png(alpha), "rgb": png(COLORS[IDS])}
    files = {"labelmap.txt": LABELMAP} | {f"SegmentationClass/{name}.v2.PNG": data for name, data in names.items()}
    paint(write_zip(tmp_path / "x.zip", files), tmp_path)
    for name in names:
        assert read_png(tmp_path, f"{name}.v2").tolist() == IDS.tolist()


def test_unknown_colors_are_named_with_their_number(tmp_path: Path) -> None:
    colors = COLORS[IDS]
    colors[3, 4:9] = 42, 125, 210
    colors[0, 0] = 1, 2, 3
    source = write_zip(tmp_path / "x.zip", {"labelmap.txt": LABELMAP, "SegmentationClass/t/a.png": png(colors)})
    wanted = r"x\.zip/SegmentationClass/t/a\.png has the color 42,125,210 at 5 pixels and 1 pixels of other colors"
    with pytest.raises(ConfigError, match=wanted):
        paint(source, tmp_path)


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        (b"", "lists no label"),
        (b"# label:color_rgb:parts:actions\n", "lists no label"),
        (b"car\n", "line 1: 'car' has 1 fields"),
        (b"car:1,2,3::\na:b:1,2,3::\n", "line 2: .* has 5 fields"),
        (b"car:::\n", "line 1: the color ''"),
        (b"car:1,2::\n", "the color '1,2'"),
        (b"car:1,2,256::\n", "the color '1,2,256'"),
        (b"car:1,2,-3::\n", "the color '1,2,-3'"),
        (b"car:1,2," + b"9" * 5000 + b"::\n", "line 1"),
        (b"car:1,2,3::\ncar:1,2,4::\n", "line 2: the label 'car'"),
        (b"car:1,2,3::\nbus:1,2,3::\n", r"the color \(1, 2, 3\) occurs twice"),
        (b" :1,2,3::\n", "class name"),
        (b"\xff:1,2,3::\n", "labelmap.txt"),
    ],
)
def test_malformed_label_maps_are_named(tmp_path: Path, labelmap: bytes, message: str) -> None:
    source = write_zip(tmp_path / "x.zip", mask_files(IDS) | {"labelmap.txt": labelmap})
    with pytest.raises(ConfigError, match=message) as refusal:
        paint(source, tmp_path)
    assert "x.zip/labelmap.txt" in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"SegmentationClass/a.png": b"no image"}, "SegmentationClass/a.png is no mask"),
        ({"SegmentationClass/a.png": b""}, "is no mask"),
        ({"SegmentationClass/a.png": png(COLORS[IDS])[:90]}, "is no mask"),
        ({"SegmentationClass/a.png": png(np.zeros((4, 4), np.uint16))}, "is no mask: its pixels are of mode I;16"),
        ({"SegmentationClass/.png": png(COLORS[IDS])}, "SegmentationClass/.png: the file name ''"),
        ({"t/labelmap.txt": LABELMAP}, "holds labelmap.txt, t/labelmap.txt, must be one export"),
        ({"annotations/instances_default.json": b"{}"}, "holds annotations/instances_default.json, labelmap.txt, must"),
        ({"../x.png": b""}, "file name '../x.png'"),
        ({"/x.png": b""}, "file name '/x.png'"),
        ({"a\\..\\x.png": b""}, "file name"),
    ],
)
def test_other_content_is_named(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        paint(write_zip(tmp_path / "x.zip", {"labelmap.txt": LABELMAP} | files), tmp_path)
    assert "x.zip" in str(refusal.value)


def test_exports_without_masks_and_other_files_are_named(tmp_path: Path) -> None:
    looked_for = r"a COCO JSON .*Label Studio's JSON export .*labelmap\.txt and SegmentationClass"
    with pytest.raises(ConfigError, match=r"no SegmentationClass/\*\.png"):
        paint(write_zip(tmp_path / "x.zip", {"labelmap.txt": LABELMAP}), tmp_path)
    with pytest.raises(ConfigError, match=f"holds 1 other files.*{looked_for}"):
        paint(write_zip(tmp_path / "x.zip", {"annotations.xml": b"<annotations/>"}), tmp_path)
    with pytest.raises(ConfigError, match=f"holds nothing, must be one export.*{looked_for}"):
        paint(tmp_path / "nothing", tmp_path)
    for data in (b"", b"<annotations/>", b"\xef\xbb\xbf", b"\0" * 50):
        (tmp_path / "x.xml").write_bytes(data)
        with pytest.raises(ConfigError, match=f"x.xml is no export that can be painted: .*{looked_for}"):
            paint(tmp_path / "x.xml", tmp_path)
    for data in (b"{", b"[", b"[{]", b'{"images": [', b"[" * 100_000, b'{"a": ' * 100_000, b'{"a": "\xff"}'):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(ConfigError, match=r"x\.json is not valid JSON"):
            paint(tmp_path / "x.json", tmp_path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "x.zip", mask_files(IDS))
    whole = source.read_bytes()
    generator = np.random.default_rng(1)
    source.write_bytes(whole[:-10])
    with pytest.raises(ConfigError, match=r"x\.zip is a damaged \.zip"):
        paint(source, tmp_path)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for place in generator.integers(2, len(whole), 3):
            data[place] = generator.integers(256)
        source.write_bytes(data)
        try:
            paint(source, tmp_path)
        except ConfigError as error:
            refused += 1
            assert "x.zip" in str(error)
    assert refused > 100


def test_archives_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_zip(tmp_path / "x.zip", mask_files(IDS) | {"images/a.jpg": bytes(10_000)})
    # A member that states fewer bytes than it holds is refused as well, because its checksum is wrong.
    data = source.read_bytes()
    place = data.rindex(b"labelmap.txt") - 22
    assert struct.unpack_from("<I", data, place) == (len(LABELMAP),)
    (tmp_path / "y.zip").write_bytes(data[:place] + struct.pack("<I", 5) + data[place + 4 :])
    with pytest.raises(ConfigError, match=r"y\.zip/labelmap\.txt is damaged"):
        paint(tmp_path / "y.zip", tmp_path)
    monkeypatch.setattr(cvat, "_LARGEST_SUM", 10_000)
    with pytest.raises(ConfigError, match=r"x\.zip unpacks to 10,\d+ bytes, the limit is 10,000"):
        paint(source, tmp_path)


def test_files_beyond_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_json(tmp_path / "in/annotations/instances_x.json", coco([])).parents[1]
    monkeypatch.setattr(cvat, "LARGEST_FILE", 100)
    with pytest.raises(ConfigError, match=r"instances_x\.json has \d+ bytes, the limit is 100"):
        paint(folder, tmp_path)
    monkeypatch.setattr("pipeline.data.annotations.paint.LARGEST_FILE", 100)
    with pytest.raises(ConfigError, match=r"x\.zip has \d+ bytes, the limit is 100"):
        paint(write_zip(tmp_path / "x.zip", mask_files(IDS)), tmp_path)
