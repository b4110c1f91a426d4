"""The frozen list of a run's inputs: one row per image, sorted by URI, with size, version and paired label."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.data.filesystems import normalise
from pipeline.data.storage import ObjectInfo, Storage
from pipeline.errors import ConfigError, ObjectMissing

__all__ = ["MANIFEST_SCHEMA", "build_manifest", "digest", "glob_pattern", "pair_labels"]

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("label_uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
    ]
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
_TABLES = frozenset({".parquet", ".csv", ".jsonl", ".ndjson", ".txt", ".lst"})
_LOOKUP_THREADS = 32


def build_manifest(
    storage: Storage, images: str, labels: str | None = None, limit: int | None = None, leave_out: str | None = None
) -> pa.Table:
    """Lists the inputs of a run.

    Args:
        storage: where everything is read.
        images: a prefix; a glob (`*` within a name, `**` across folders, `?` one character); or a manifest file
            (`.parquet`, `.csv`, `.jsonl`, or a plain `.txt` list) with `image_uri` and perhaps `label_uri`.
        labels: a prefix whose files pair with the images by relative path without extension; none is an image itself.
        limit: keep only the first so many, in order of URI.
        leave_out: a prefix whose objects are no inputs, such as an output that lies among them.

    Returns:
        A table of `MANIFEST_SCHEMA`. An image that a manifest file names but that does not exist stays in it,
        size and version null, and becomes an error row later.

    Raises:
        ConfigError: for one prefix as images and labels, duplicates, ambiguous pairs, or an unreadable manifest file.
        StorageError: if storage cannot be listed.
    """
    images, labels = normalise(images), labels and normalise(labels)
    if labels is not None and labels.rstrip("/") == images.rstrip("/"):
        raise ConfigError(f"{images} is given as images and as labels: they need a prefix each")
    if PurePosixPath(images).suffix.lower() in _TABLES:
        rows = _from_table(storage, images)
    else:
        found = _from_glob(storage, images) if _is_glob(images) else _from_prefix(storage, images)
        others = tuple(f"{normalise(prefix).rstrip('/')}/" for prefix in (leave_out, labels) if prefix is not None)
        rows = [(info.uri, None, info) for info in found if not info.uri.startswith(others)]
    if labels is not None:
        pairs = pair_labels(_fixed_part(images), labels, [uri for uri, _, _ in rows], storage.list(labels))
        rows = [(uri, pairs.get(uri, label), info) for uri, label, info in rows]
    rows = sorted(rows, key=lambda row: row[0])[:limit]
    _refuse_duplicates(images, [uri for uri, _, _ in rows])
    return _table(rows)


def pair_labels(
    images_root: str, labels_root: str, images: Iterable[str], labels: Iterable[ObjectInfo]
) -> dict[str, str]:
    """Label URI by image URI, for those images that have one of the same relative path without extension.

    Raises:
        ConfigError: if two labels claim one image.
    """
    by_stem: dict[str, str] = {}
    for label in labels:
        if PurePosixPath(label.uri).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        stem = _relative_stem(label.uri, labels_root)
        if stem in by_stem:
            raise ConfigError(f"labels {by_stem[stem]} and {label.uri} both pair with `{stem}`: remove one")
        by_stem[stem] = label.uri
    stems = {image: _relative_stem(image, images_root) for image in images}
    return {image: by_stem[stem] for image, stem in stems.items() if stem in by_stem}


def digest(manifest: pa.Table) -> str:
    """SHA-256 of the content, whatever file it lies in."""
    content = hashlib.sha256()
    for batch in manifest.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            content.update(json.dumps(list(row.values()), ensure_ascii=False).encode() + b"\n")
    return content.hexdigest()


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """`*` is any text without a slash, `**` any text, `**/` any folders or none, `?` one character but a slash."""
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(translated.get(piece) or re.escape(piece) for piece in pieces))


Row = tuple[str, str | None, ObjectInfo | None]


def _from_prefix(storage: Storage, prefix: str) -> list[ObjectInfo]:
    return [info for info in storage.list(prefix) if PurePosixPath(info.uri).suffix.lower() in IMAGE_SUFFIXES]


def _from_glob(storage: Storage, pattern: str) -> list[ObjectInfo]:
    root, matcher = _fixed_part(pattern), glob_pattern(pattern)
    return [info for info in storage.list(root) if matcher.fullmatch(info.uri)]


def _from_table(storage: Storage, uri: str) -> list[Row]:
    data, suffix = storage.read(uri), PurePosixPath(uri).suffix.lower()
    try:
        columns = _read_table(data, suffix)
    except (pa.ArrowException, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{uri} is not a manifest with a column `image_uri`: {error}") from error
    named = list(columns)
    with ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
        infos = pool.map(lambda row: _lookup(storage, row[0]), named)
        return [(image, label or None, info) for (image, label), info in zip(named, infos, strict=True)]


def _read_table(data: bytes, suffix: str) -> Iterator[tuple[str, str | None]]:
    if suffix in (".txt", ".lst"):
        lines = (line.strip() for line in data.decode().splitlines())
        return ((line, None) for line in lines if line)
    if suffix in (".jsonl", ".ndjson"):
        rows = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        return iter([(str(row["image_uri"]), row.get("label_uri")) for row in rows])
    table = pq.read_table(io.BytesIO(data)) if suffix == ".parquet" else pyarrow.csv.read_csv(io.BytesIO(data))
    images = table["image_uri"].to_pylist()
    labels = table["label_uri"].to_pylist() if "label_uri" in table.column_names else [None] * len(images)
    return zip(images, labels, strict=True)


def _lookup(storage: Storage, uri: str) -> ObjectInfo | None:
    try:
        return storage.info(uri)
    except ObjectMissing:
        return None


def _table(rows: list[Row]) -> pa.Table:
    columns = {
        "image_uri": [uri for uri, _, _ in rows],
        "label_uri": [label for _, label, _ in rows],
        "size": [info and info.size for _, _, info in rows],
        "version": [info and info.version for _, _, info in rows],
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _refuse_duplicates(source: str, uris: list[str]) -> None:
    repeated = [uri for uri, count in Counter(uris).items() if count > 1]
    if repeated:
        raise ConfigError(f"{source} names {len(repeated)} images twice, first {repeated[0]}: remove the repetition")


def _is_glob(images: str) -> bool:
    return "*" in images or "?" in images


def _fixed_part(images: str) -> str:
    """The folder above the first wildcard."""
    if not _is_glob(images):
        return images
    return re.split(r"[*?]", images, maxsplit=1)[0].rpartition("/")[0]


def _relative_stem(uri: str, root: str) -> str:
    relative = uri.removeprefix(root.rstrip("/")).lstrip("/")
    return str(PurePosixPath(relative).with_suffix(""))
