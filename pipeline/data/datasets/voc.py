"""Layout `voc`: PASCAL VOC 2012, with the annotations of Hariharan et al. 2011 (SBD) if they lie beside it.

With SBD, the train split is the paper's (Sec. 4): VOC's train images and all that SBD annotates, in its own train and
val, without any image of VOC's val. If both annotate an image, VOC's annotation counts, which is finer and marks void.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.files import DataFolder, Files
from pipeline.data.datasets.layout import LabelFiles, LabelledImage, Layout, Split, pair_up
from pipeline.data.label_spaces import LABEL_SPACES, LabelSpace
from pipeline.data.storage import Storage
from pipeline.errors import DecodeError, UnknownClasses

__all__ = ["VOC", "decode_sbd"]

# Names and numbers of MathWorks' "MAT-File Format".
_HEADER = 128  # bytes
_VERSION = 0x0100
_UINT8, _MATRIX, _COMPRESSED = 2, 14, 15  # types of elements
_STRUCT = 2  # class of matrices
_MOST = 64 * 2**20  # bytes after decompression; an SBD label has about 250,000

# Type and content.
Element = tuple[int, memoryview]


def decode_sbd(data: bytes, classes: int) -> NDArray[np.uint8]:
    """Decode `GTcls.Segmentation` of a file below `cls/`; SBD marks no void pixels.

    Args:
        data: Bytes of the whole file.
        classes: Number of class ids.

    Returns:
        (H, W) uint8 of ids below `classes`.

    Raises:
        DecodeError: If the file is damaged or of another kind.
        UnknownClasses: If a value is not a class id.
    """
    try:
        ids = _segmentation(data)
    except (struct.error, zlib.error, IndexError, ValueError, KeyError) as error:
        raise DecodeError(f"not a MATLAB 5 file with GTcls.Segmentation: {type(error).__name__}: {error}") from error
    if ids.size and ids.max() >= classes:
        raise UnknownClasses(f"label value {ids.max()} is none of {classes} classes")
    return ids


def _segmentation(data: bytes) -> NDArray[np.uint8]:
    """Return the matrix `Segmentation` of the structure `GTcls`."""
    # The header ends with a version and the byte order, two bytes each.
    order = {b"IM": "<", b"MI": ">"}[data[_HEADER - 2 : _HEADER]]
    if struct.unpack_from(f"{order}H", data, _HEADER - 4) != (_VERSION,):
        raise ValueError("another version of the format")
    for kind, content in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            # A compressed element contains one other element.
            kind, content = next(_elements(_inflated(content), order), (0, content))
        if kind == _MATRIX:
            flags, _, name, *fields = _elements(content, order)
            if bytes(name[1]) == b"GTcls" and _class(flags, order) == _STRUCT:
                return _labels(_field(fields, "Segmentation", order), order)
    raise ValueError("no structure GTcls")


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Yield type and content of each element of a sequence."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        after = place + 8 + size
        if kind >> 16:  # a small element: up to four bytes within the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if start + size > len(data) or start + size > after:
            raise ValueError("an element ends beyond what holds it")
        yield kind, data[start : start + size]
        # Elements are padded to eight bytes, except compressed ones.
        place = after if kind == _COMPRESSED else after + -after % 8


def _inflated(data: memoryview) -> memoryview:
    """Return the decompressed content of an element, which may have at most `_MOST` bytes."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, _MOST)
    if not stream.eof:
        raise ValueError(f"compressed data end early, or hold more than {_MOST} bytes")
    return memoryview(content)


def _class(flags: Element, order: str) -> int:
    """Return the class of a matrix from its array flags."""
    return int(struct.unpack_from(f"{order}I", flags[1])[0]) & 0xFF


def _field(fields: list[Element], wanted: str, order: str) -> memoryview:
    """Return the matrix in a field of a 1×1 structure.

    The elements of such a structure are the length of a name, all names, and the matrices.
    """
    (length,) = struct.unpack(f"{order}i", fields[0][1])
    names = bytes(fields[1][1])
    starts = range(0, len(names), length)
    named = {names[start : start + length].rstrip(b"\0").decode(): fields[2 + n] for n, start in enumerate(starts)}
    kind, content = named[wanted]
    if kind != _MATRIX:
        raise ValueError(f"{wanted} is no matrix")
    return content


def _labels(matrix: memoryview, order: str) -> NDArray[np.uint8]:
    """Return the values of an 8-bit matrix, (H, W) uint8."""
    _, size, _, values, *_ = _elements(matrix, order)
    height, width = struct.unpack(f"{order}2i", size[1])
    if values[0] != _UINT8:
        raise ValueError(f"its numbers are of type {values[0]}, not 8 bits")
    # MATLAB stores matrices column by column.
    return np.ascontiguousarray(np.frombuffer(values[1], np.uint8).reshape((height, width), order="F"))


logger = logging.getLogger(__name__)

_SPACE = LABEL_SPACES["voc"]
_PLACES = ("VOCdevkit/VOC2012", "VOC2012", "")
_SBD_PLACES = ("benchmark_RELEASE/dataset", "VOCdevkit/benchmark_RELEASE/dataset")


@dataclass(frozen=True)
class _Labels:
    """Reader of VOC's label images and SBD's MATLAB files."""

    storage: Storage

    def __call__(self, pair: LabelledImage) -> NDArray[np.uint8]:
        if pair.label_uri.endswith(".mat"):
            return decode_sbd(self.storage.read(pair.label_uri), len(_SPACE.classes))
        return LabelFiles(self.storage, _SPACE)(pair)


def _find(folder: DataFolder) -> DataFolder | None:
    return folder.find(_PLACES, ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    voc = _find(folder) or folder
    names = _names(voc, f"ImageSets/Segmentation/{split}.txt")
    images = voc.files("JPEGImages")
    labels = voc.files("SegmentationClass")
    wanted = [(voc.uri(f"JPEGImages/{name}.jpg"), voc.uri(f"SegmentationClass/{name}.png")) for name in names]
    pairs = pair_up(wanted, images, labels, voc.uri(f"ImageSets/Segmentation/{split}.txt"))
    if split == "train":
        validation = _names(voc, "ImageSets/Segmentation/val.txt")
        pairs += _more(folder, voc, images, {*names, *validation})
    return Split(pairs, _Labels(folder.storage), _SPACE.classes)


def _more(folder: DataFolder, voc: DataFolder, images: Files, taken: set[str]) -> list[LabelledImage]:
    """Return the pairs that SBD adds to VOC's train split.

    An image that VOC 2012 also has is read from VOC.
    """
    sbd = folder.find(_SBD_PLACES, ("cls", "train.txt", "val.txt"))
    if sbd is None:
        logger.info("%s has no benchmark_RELEASE/dataset beside it: plain VOC train, without SBD", voc.root)
        return []
    names = [name for name in dict.fromkeys(_names(sbd, "train.txt") + _names(sbd, "val.txt")) if name not in taken]
    if not names:
        return []
    by_name = {name: voc.uri(f"JPEGImages/{name}.jpg") for name in names}
    # SBD's images are listed only if VOC lacks some of them.
    if any(uri not in images for uri in by_name.values()):
        images = images | sbd.files("img")
        own = {name: sbd.uri(f"img/{name}.jpg") for name in names}
        by_name = {name: uri if uri in images else own[name] for name, uri in by_name.items()}
    wanted = [(uri, sbd.uri(f"cls/{name}.mat")) for name, uri in by_name.items()]
    return pair_up(wanted, images, sbd.files("cls"), sbd.root)


def _names(folder: DataFolder, path: str) -> list[str]:
    """Return the image names in a list, the first word of each line."""
    return [line.split()[0] for line in folder.lines(path)]


VOC = Layout(
    "voc",
    "JPEGImages, SegmentationClass and ImageSets/Segmentation, here, in VOC2012 or in VOCdevkit/VOC2012",
    lambda folder: _find(folder) is not None,
    _read,
)
