"""Lists of a run's images and labels, frozen as Parquet below `<output>/data` when the run begins.

Each name holds a digest of the list's content, and `recipe.json` names the lists that count. So a list is written
before `recipe.json` without a lock, and one that a lost race leaves behind is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from pipeline.data.datasets.layout import LabelledImage
from pipeline.data.datasets.look_up import look_up
from pipeline.data.datasets.registry import LAYOUTS
from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.results.schema.encoding import parquet_bytes, read_parquet

__all__ = ["FrozenList", "check_unchanged", "read_list", "write_list"]

_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("data", pa.string(), nullable=False),
        pa.field("layout", pa.string(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("label_uri", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("label_version", pa.string()),
    ]
)
# One data set's URI, the name of its layout, and its pairs in order.
FrozenList = tuple[str, str, Sequence[LabelledImage]]


def write_list(storage: Storage, output: str, split: str, lists: Sequence[FrozenList]) -> str:
    """Write the list of a split, over all its data sets; return its path below `output`."""
    rows = [
        {
            "split": split,
            "data": data,
            "layout": layout,
            "image_uri": pair.image_uri,
            "label_uri": pair.label_uri,
            "version": pair.version,
            "label_version": pair.label_version,
        }
        for data, layout, pairs in lists
        for pair in pairs
    ]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    digest = hashlib.sha256(repr([list(row.values()) for row in rows]).encode()).hexdigest()
    path = f"data/{split}-{digest[:16]}.parquet"
    storage.write_once(join(output, path), parquet_bytes(table))
    return path


def read_list(storage: Storage, output: str, path: str) -> list[FrozenList]:
    """Return the list at `path` below `output`, by data set."""
    rows = read_parquet(storage, join(output, path)).to_pylist()
    lists = groupby(rows, key=lambda row: (row["data"], row["layout"]))
    return [(data, layout, list(_pairs(group))) for (data, layout), group in lists]


def check_unchanged(storage: Storage, lists: Sequence[FrozenList]) -> None:
    """Compare frozen versions with those that storage has now.

    Layouts whose labels need more than their pairs are compared where `LabelledImages` reads them.

    Raises:
        RunConflict: If an image or a label was replaced or removed.
    """
    pairs = [pair for _, layout, frozen in lists if LAYOUTS[layout].plain_labels for pair in frozen]
    versions = {pair.image_uri: pair.version for pair in pairs}
    versions |= {pair.label_uri: pair.label_version for pair in pairs}
    found = look_up(storage, versions)
    lost = sorted(uri for uri, version in versions.items() if uri not in found or found[uri].version != version)
    if lost:
        raise RunConflict(
            f"{len(lost)} images or labels were replaced or removed since the run began, first {lost[0]}: put them "
            "back, or choose another --output"
        )


def _pairs(rows: Iterator[dict[str, str]]) -> Iterator[LabelledImage]:
    for row in rows:
        yield LabelledImage(row["image_uri"], row["label_uri"], row["version"], row["label_version"])
