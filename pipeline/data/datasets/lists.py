"""Data sets that are described by lists: text files with image and label paths, and tables of pairs."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.data.datasets.files import DataFolder, absolute, look_up
from pipeline.data.datasets.layout import WHOLE, LabelFiles, Layout, Split, pair_up
from pipeline.data.label_spaces import LabelSpace
from pipeline.errors import ConfigError

__all__ = ["LISTS", "MANIFEST"]


def _has_list(folder: DataFolder) -> bool:
    return any(folder.has(f"{split}_image.txt") and folder.has(f"{split}_label.txt") for split in ("train", "val"))


def _read_list(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    images, labels = (
        [absolute(folder, line) for line in folder.lines(f"{split}_{kind}.txt")] for kind in ("image", "label")
    )
    source = folder.uri(f"{split}_image.txt")
    if len(images) != len(labels):
        raise ConfigError(
            f"{source} has {len(images)} lines, {split}_label.txt beside it {len(labels)}: line by line, they are pairs"
        )
    found = look_up(folder.storage, [*images, *labels])
    pairs = pair_up(zip(images, labels, strict=True), found, found, source)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes)


LISTS = Layout(
    "lists",
    "train_image.txt and train_label.txt, or val_image.txt and val_label.txt",
    _has_list,
    _read_list,
    plain_labels=True,
)


_MANIFEST_COLUMNS = ("image_uri", "label_uri")


def _read_csv(data: bytes) -> pa.Table:
    # Read names such as 0001 as text, not as numbers.
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(_MANIFEST_COLUMNS, pa.string()))
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=types)


_READERS: dict[str, Callable[[bytes], pa.Table]] = {
    "parquet": lambda data: pq.read_table(io.BytesIO(data)),
    "csv": _read_csv,
    "jsonl": lambda data: pyarrow.json.read_json(io.BytesIO(data)),
}


def _manifest_files(folder: DataFolder, split: str) -> list[str]:
    return [name for name in (f"{split}.{suffix}" for suffix in _READERS) if folder.has(name)]


def _table_name(split: str) -> str:
    """Return the name, without suffix, of the table of a split."""
    return "pairs" if split == WHOLE else split


def _has_split(folder: DataFolder, split: str) -> bool:
    # A table of pairs is divided into train and val later. If there is no table at all, `_read_manifest` reports it.
    return bool(_manifest_files(folder, _table_name(split))) or (
        split != WHOLE and not _manifest_files(folder, "pairs")
    )


def _read_manifest(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    files = _manifest_files(folder, _table_name(split))
    if len(files) != 1:
        wanted = " or ".join(f"{_table_name(split)}.{suffix}" for suffix in _READERS)
        raise ConfigError(f"{folder.root} holds {', '.join(files) or 'none of them'}: give one of {wanted}")
    source = folder.uri(files[0])
    rows = _manifest_rows(folder.storage.read(source), source)
    wanted_pairs = [(absolute(folder, image), absolute(folder, label)) for image, label in rows]
    found = look_up(folder.storage, [uri for pair in wanted_pairs for uri in pair])
    pairs = pair_up(wanted_pairs, found, found, source)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes, source)


def _manifest_rows(data: bytes, source: str) -> list[tuple[str, str]]:
    try:
        table = _READERS[source.rpartition(".")[2]](data)
        rows = list(zip(*(table[name].to_pylist() for name in _MANIFEST_COLUMNS), strict=True))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ConfigError(f"{source} is no table with columns {' and '.join(_MANIFEST_COLUMNS)}: {error}") from error
    for number, row in enumerate(rows):
        if not all(isinstance(value, str) and value for value in row):
            raise ConfigError(f"row {number} of {source} lacks its {' or '.join(_MANIFEST_COLUMNS)}: {row}")
    return rows


MANIFEST = Layout(
    "manifest",
    f"train or val, or pairs, as {', '.join(f'.{suffix}' for suffix in _READERS)}",
    lambda folder: any(_manifest_files(folder, name) for name in ("train", "val", "pairs")),
    _read_manifest,
    _has_split,
    plain_labels=True,
)
