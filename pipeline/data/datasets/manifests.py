"""Layout `manifest`: tables with columns `image_uri` and `label_uri`.

The tables are `train` and `val`, or `pairs` for a data set without splits.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.data.datasets.folder import DataFolder
from pipeline.data.datasets.layout import WHOLE, LabelFiles, Layout, Split, pair_up
from pipeline.data.datasets.look_up import absolute, look_up
from pipeline.data.label_spaces import LabelSpace
from pipeline.errors import ConfigError

__all__ = ["MANIFEST"]

_COLUMNS = ("image_uri", "label_uri")


def _read_csv(data: bytes) -> pa.Table:
    # Read names such as 0001 as text, not as numbers.
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=types)


_READERS: dict[str, Callable[[bytes], pa.Table]] = {
    "parquet": lambda data: pq.read_table(io.BytesIO(data)),
    "csv": _read_csv,
    "jsonl": lambda data: pyarrow.json.read_json(io.BytesIO(data)),
}


def _files(folder: DataFolder, split: str) -> list[str]:
    return [name for name in (f"{split}.{suffix}" for suffix in _READERS) if folder.has(name)]


def _table_name(split: str) -> str:
    """Return the name, without suffix, of the table of a split."""
    return "pairs" if split == WHOLE else split


def _has_split(folder: DataFolder, split: str) -> bool:
    # A table of pairs is divided into train and val later. If there is no table at all, `_read` reports it.
    return bool(_files(folder, _table_name(split))) or (split != WHOLE and not _files(folder, "pairs"))


def _read(folder: DataFolder, split: str, space: LabelSpace) -> Split:
    files = _files(folder, _table_name(split))
    if len(files) != 1:
        wanted = " or ".join(f"{_table_name(split)}.{suffix}" for suffix in _READERS)
        raise ConfigError(f"{folder.root} holds {', '.join(files) or 'none of them'}: give one of {wanted}")
    source = folder.uri(files[0])
    rows = _rows(folder.storage.read(source), source)
    wanted_pairs = [(absolute(folder, image), absolute(folder, label)) for image, label in rows]
    found = look_up(folder.storage, [uri for pair in wanted_pairs for uri in pair])
    pairs = pair_up(wanted_pairs, found, found, source)
    return Split(pairs, LabelFiles(folder.storage, space), space.classes, source)


def _rows(data: bytes, source: str) -> list[tuple[str, str]]:
    try:
        table = _READERS[source.rpartition(".")[2]](data)
        rows = list(zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ConfigError(f"{source} is no table with columns {' and '.join(_COLUMNS)}: {error}") from error
    for number, row in enumerate(rows):
        if not all(isinstance(value, str) and value for value in row):
            raise ConfigError(f"row {number} of {source} lacks its {' or '.join(_COLUMNS)}: {row}")
    return rows


MANIFEST = Layout(
    "manifest",
    f"train or val, or pairs, as {', '.join(f'.{suffix}' for suffix in _READERS)}",
    lambda folder: any(_files(folder, name) for name in ("train", "val", "pairs")),
    _read,
    _has_split,
    plain_labels=True,
)
