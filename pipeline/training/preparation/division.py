"""Division of a run's images into training and validation, frozen in tables at the first start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from pipeline.data.datasets.files import look_up
from pipeline.data.datasets.layout import LabelledImage
from pipeline.data.datasets.registry import LAYOUTS
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.schema.encoding import parquet_bytes, read_parquet

__all__ = ["DEFAULT_FRACTION", "Division", "FrozenList", "check_unchanged", "read_list", "write_list"]

DEFAULT_FRACTION = 0.1


@dataclass(frozen=True)
class Division:
    """A rule that sets images aside for validation by a hash of their names.

    Attributes:
        fraction: Share of the images, or of their groups, that is set aside.
        group: Regular expression whose first group, or whole match, names what stays together; None: every image is
            on its own.
    """

    fraction: float = DEFAULT_FRACTION
    group: str | None = None

    def is_validation(self, paths: Sequence[str], source: str, *, optional: bool = False) -> list[bool]:
        """Tell for each image whether it is set aside for validation.

        At least one group goes to each side, unless `optional`: where the hash puts none into val, the one with the
        smallest hash goes there, and likewise for train.

        Args:
            paths: Paths of the images relative to their folder, without extension.
            source: Name of the data set, for messages.
            optional: Whether one side may stay empty, since another data set has a val of its own.

        Raises:
            ConfigError: If the pattern matches no path, or there are fewer than two groups.
        """
        names = [self._group_of(path) for path in paths]
        if self.group is not None and not any(matched for matched, _ in names):
            raise ConfigError(
                f"--val-group {self.group!r} matches none of {len(paths)} images of {source}, such as {paths[0]!r}: "
                "write a pattern that matches a part of these paths"
            )
        shares = {name: _share(name) for _, name in names}
        if optional:
            return [shares[name] < self.fraction for _, name in names]
        if len(shares) < 2:
            what = "images" if self.group is None else "groups"
            raise ConfigError(
                f"{source} has {len(shares)} {what}, too few to set one aside for validation: add some, or give train "
                "and val folders of their own"
            )
        by_share = sorted(shares, key=lambda name: shares[name])
        aside = {name for name in shares if shares[name] < self.fraction} | {by_share[0]}
        if len(aside) == len(shares):
            aside.remove(by_share[-1])
        return [name in aside for _, name in names]

    def unmatched(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that a group pattern does not match."""
        return [path for path in paths if self.group is not None and not self._group_of(path)[0]]

    def _group_of(self, path: str) -> tuple[bool, str]:
        """Return whether the pattern matches, and the name of the group; a path without a match is its own group."""
        match = re.search(self.group, path) if self.group is not None else None
        name = None if match is None else match.group(1 if match.re.groups else 0)
        # An empty name says nothing: it would join images that have nothing in common.
        return (True, name) if name else (False, path)


def _share(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56


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
