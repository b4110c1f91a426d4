"""Tests of VOC 2012, alone and with SBD's annotations beside it."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.data.datasets.voc import decode_sbd
from pipeline.data.label_spaces import label_space
from pipeline.data.storage import join
from pipeline.errors import ConfigError, DecodeError, UnknownClasses
from pipeline.training.samples.dataset import LabelledImages
from tests.shared import STORAGE

SPACE = label_space("voc")
SHAPE = (5, 7)


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def encoded(image: Image.Image, kind: str) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def ids(seed: int) -> np.ndarray:
    """Return ids of the 21 classes, (5, 7)."""
    return np.random.default_rng(seed).integers(0, 21, SHAPE, dtype=np.uint8)


def palette_png(values: np.ndarray) -> bytes:
    image = Image.fromarray(values, mode="P")
    image.putpalette([channel for colour in SPACE.palette for channel in colour])
    return encoded(image, "PNG")


def mat(values: np.ndarray, compressed: bool = True) -> bytes:
    """Return a file in SBD's form: a struct with Boundaries, Segmentation and CategoriesPresent."""
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [np.eye(3, dtype=bool)] * 20
    struct = {"Boundaries": boundaries, "Segmentation": values, "CategoriesPresent": np.unique(values)}
    sink = io.BytesIO()
    savemat(sink, {"GTcls": struct}, do_compression=compressed)
    return sink.getvalue()


def void(seed: int) -> np.ndarray:
    """Return the ids (5, 7) with void in the first row."""
    label = ids(seed)
    label[0] = 255
    return label


def write_voc(root: str, place: str = "VOCdevkit/VOC2012") -> str:
    """Write three images for training, two for validation, and one that VOC does not annotate."""
    for split, seeds in (("train", (1, 2, 3)), ("val", (4, 5))):
        STORAGE.write(
            join(root, place, f"ImageSets/Segmentation/{split}.txt"), "".join(f"i{n}\n" for n in seeds).encode()
        )
        for seed in seeds:
            STORAGE.write(join(root, place, f"SegmentationClass/i{seed}.png"), palette_png(void(seed)))
    for seed in range(1, 7):
        STORAGE.write(join(root, place, f"JPEGImages/i{seed}.jpg"), jpeg(seed))
    return root


def write_sbd(root: str, place: str = "benchmark_RELEASE/dataset") -> str:
    """Write annotations of two of VOC's train images and one of its val images, and of one more image in each split.

    One of them is SBD's own image.
    """
    for split, seeds in (("train", (1, 4, 6)), ("val", (2, 7))):
        STORAGE.write(join(root, place, f"{split}.txt"), "".join(f"i{n}\n" for n in seeds).encode())
        for seed in seeds:
            STORAGE.write(join(root, place, f"cls/i{seed}.mat"), mat(ids(100 + seed), seed % 2 == 0))
            STORAGE.write(join(root, place, f"img/i{seed}.jpg"), jpeg(seed))
    return root


def names(images: LabelledImages) -> list[str]:
    return [Path(pair.image_uri).stem for pair in images.pairs]


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOC2012", "."])
def test_voc_alone(tmp_path: Path, place: str) -> None:
    root = write_voc(str(tmp_path), place)
    train, val = (LabelledImages(STORAGE, root, split, SPACE) for split in ("train", "val"))
    assert (names(train), names(val)) == (["i1", "i2", "i3"], ["i4", "i5"])
    assert [val.pair(index)[1].tolist() for index in range(2)] == [void(4).tolist(), void(5).tolist()]


@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset", "VOCdevkit/benchmark_RELEASE/dataset"])
def test_sbd_adds_to_train_and_never_what_validates(tmp_path: Path, place: str) -> None:
    root = write_sbd(write_voc(str(tmp_path)), place)
    train, val = (LabelledImages(STORAGE, root, split, SPACE, "voc") for split in ("train", "val"))
    assert sorted(names(train)) == ["i1", "i2", "i3", "i6", "i7"]
    assert names(val) == ["i4", "i5"]
    labels = {name: train.pair(index)[1].tolist() for index, name in enumerate(names(train))}
    own = {f"i{seed}": void(seed).tolist() for seed in (1, 2, 3)}
    assert labels == own | {f"i{seed}": ids(100 + seed).tolist() for seed in (6, 7)}
    uris = {Path(pair.image_uri).stem: pair.image_uri for pair in train.pairs}
    assert "JPEGImages" in uris["i6"] and "benchmark_RELEASE" in uris["i7"]


def test_voc_with_sbd_in_a_bucket(bucket: str) -> None:
    root = write_sbd(write_voc(bucket))
    train = LabelledImages(STORAGE, root, "train", SPACE)
    assert sorted(names(train)) == ["i1", "i2", "i3", "i6", "i7"]
    assert all(pair.version and pair.label_version for pair in train.pairs)
    for index in range(len(train)):
        train.pair(index)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("VOCdevkit/VOC2012/SegmentationClass/i2.png", r"1 files .*train\.txt.* first .*i2\.png"),
        ("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", r"there is no .*val\.txt"),
        ("benchmark_RELEASE/dataset/cls/i6.mat", r"1 files .*benchmark_RELEASE.* first .*i6\.mat"),
        ("benchmark_RELEASE/dataset/img/i7.jpg", r"1 files .* first .*i7\.jpg"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, message: str) -> None:
    root = write_sbd(write_voc(str(tmp_path)))
    STORAGE.delete(join(root, missing))
    with pytest.raises(ConfigError, match=message):
        LabelledImages(STORAGE, root, "train", SPACE)


def test_the_label_space_must_have_vocs_classes(tmp_path: Path) -> None:
    root = write_voc(str(tmp_path))
    with pytest.raises(ConfigError, match="layout voc gives classes that label space camvid lacks"):
        LabelledImages(STORAGE, root, "train", label_space("camvid"))


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_annotations_are_decode_errors(compressed: bool) -> None:
    whole = mat(ids(0), compressed)
    rng = np.random.default_rng(5)
    assert decode_sbd(whole, 21).tolist() == ids(0).tolist()
    broken = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        broken.append(bytes(damaged))
    for data in broken:
        try:
            label = decode_sbd(data, 21)
        except DecodeError:
            continue
        assert label.ndim == 2 and label.dtype == np.uint8


def test_other_matlab_files_are_refused() -> None:
    for content in ({"other": 1}, {"GTcls": 3}, {"GTcls": {"Segmentation": np.zeros((2, 2))}}):
        sink = io.BytesIO()
        savemat(sink, content)
        with pytest.raises(DecodeError, match=r"GTcls\.Segmentation"):
            decode_sbd(sink.getvalue(), 21)
    with pytest.raises(UnknownClasses, match="label value 30 is none of 21"):
        decode_sbd(mat(np.full(SHAPE, 30, np.uint8)), 21)
    for data in (b"", b"not a matrix" * 30, zlib.compress(b"x" * 500), b"\x89HDF\r\n\x1a\n" + b"\0" * 600):
        with pytest.raises(DecodeError):
            decode_sbd(data, 21)
