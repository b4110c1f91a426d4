"""Construction of a run's manifest, the list of its inputs.

Inputs are objects below a prefix, objects whose names match a glob, or the rows of a manifest file.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.data.filesystems import normalise
from pipeline.data.images import HAS_HEIF
from pipeline.data.listing import spooled, walk
from pipeline.data.manifest_table import Manifest, ManifestTable
from pipeline.data.storage import ObjectInfo, Storage
from pipeline.errors import ConfigError, ObjectMissing

__all__ = ["IMAGE_SUFFIXES", "build_manifest", "describe_passed_over", "glob_pattern", "pair_labels"]

_HEIC_SUFFIXES = frozenset({".heic", ".heif"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}) | (
    _HEIC_SUFFIXES if HAS_HEIF else frozenset()
)
# Endings that annotation tools, and CamVid's release (`_L`), append to an image's name to form the name of its label.
_LABEL_ENDINGS = ("_mask", "_label", "_seg", "_L")
_TABLES = frozenset({".parquet", ".csv", ".jsonl", ".ndjson", ".txt", ".lst"})
_LOOKUP_THREADS = 32
_LOOKUP_BATCH = 1024
_LABEL_BATCH = 10_000
_MOST_NAMED = 5

logger = logging.getLogger(__name__)


def build_manifest(
    storage: Storage,
    images: str,
    labels: str | None = None,
    limit: int | None = None,
    leave_out: Sequence[str] = (),
    known_inputs: Callable[[ManifestTable], None] | None = None,
    *,
    relabeled: bool = False,
) -> Manifest:
    """List the inputs of a run, in memory that does not grow with their number.

    Args:
        storage: Storage that holds images, labels and manifest file.
        images: Prefix; glob (`*` within a name, `**` across folders, `?` one character); or manifest file (`.parquet`,
            `.csv`, `.jsonl`, or a plain `.txt` list) with `image_uri` and optionally `label_uri`.
        labels: Prefix whose files pair with the images, as described for `pair_labels`; none of them is an image
            itself. None if no prefix has labels.
        limit: Number of inputs to keep, the first in order of URI; None keeps all.
        leave_out: Prefixes whose objects are not inputs, such as an output among the images.
        known_inputs: Function that adds the known inputs to the table; they are left out unless they have changed. None
            leaves out nothing.
        relabeled: Whether known inputs also count as changed if their label has another version. The version of each
            label that a manifest file names then costs a request.

    Returns:
        All inputs except unchanged known ones. An image that a manifest file names but that does not exist stays in the
        manifest with null size and version, and becomes an error row later.

    Raises:
        ConfigError: If images and labels have the same prefix, an image is repeated, label pairs are ambiguous, or the
            manifest file is unreadable.
        StorageError: If storage cannot be listed.
    """
    images = normalise(images)
    labels = labels and normalise(labels)
    if labels is not None and labels.rstrip("/") == images.rstrip("/"):
        raise ConfigError(f"{images} is given as images and as labels: they need a prefix each")
    table = ManifestTable()
    root = _fixed_part(images)
    if known_inputs is not None:
        known_inputs(table)
    table.add_images(
        (uri, label, info, _stem(uri, root), label_version)
        for uri, label, info, label_version in _rows(storage, images, labels, leave_out, relabeled)
    )
    if labels is not None:
        _add_labels(table, labels, walk(storage, labels))
    return table.freeze(images, limit, relabeled=relabeled)


def pair_labels(
    images_root: str, labels_root: str, images: Iterable[str], labels: Iterable[ObjectInfo]
) -> dict[str, str]:
    """Return the label URI of each image whose relative path without extension a label shares.

    Labels may also end in `_mask`, `_label`, `_seg` or `_L`, or keep the image's extension, as in `0001.jpg.png`.
    Images without a label are absent from the result.

    Args:
        images_root: Prefix to which the paths of the images are relative.
        labels_root: Prefix to which the paths of the labels are relative.
        images: URIs of the images.
        labels: Listing of the label files.

    Raises:
        ConfigError: If two labels pair with one image.
    """
    table = ManifestTable()
    table.add_images((uri, None, None, _stem(uri, images_root), None) for uri in images)
    _add_labels(table, labels_root, labels)
    found: dict[str, str] = {}
    for rows in table.freeze(images_root).tables():
        found |= {row["image_uri"]: row["label_uri"] for row in rows.to_pylist() if row["label_uri"] is not None}
    return found


def describe_passed_over(counts: Mapping[str, int], place: str) -> str:
    """Return one line about the files that are not images by their suffix."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in most[:_MOST_NAMED])
    more = f" and {len(most) - _MOST_NAMED} more kinds" if len(most) > _MOST_NAMED else ""
    remedy = " (pip install 'dilated-context[heic]' reads .heic)" if _HEIC_SUFFIXES & counts.keys() else ""
    return f"passed over below {place}: {shown}{more}{remedy}"


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a glob into a regular expression.

    `*` matches any text without a slash, `**` any text, `**/` any number of folders or none, and `?` one character
    except a slash.
    """
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(translated.get(piece) or re.escape(piece) for piece in pieces))


# URI of an image, URI of its label, object info of the image, and version of the label.
Row = tuple[str, str | None, ObjectInfo | None, str | None]


def _rows(
    storage: Storage, images: str, labels: str | None, leave_out: Sequence[str], label_versions: bool
) -> Iterator[Row]:
    """Yield the inputs from a manifest file, a glob or a prefix."""
    if PurePosixPath(images).suffix.lower() in _TABLES:
        yield from _from_table(storage, images, label_versions)
        return
    others = tuple(f"{normalise(prefix).rstrip('/')}/" for prefix in (*leave_out, labels) if prefix is not None)
    found = _from_glob(storage, images) if _is_glob(images) else _from_prefix(storage, images, others)
    yield from ((info.uri, None, info, None) for info in found if not info.uri.startswith(others))


def _from_prefix(storage: Storage, prefix: str, others: tuple[str, ...]) -> Iterator[ObjectInfo]:
    """Yield the images below a prefix, and log how many other files were passed over."""
    passed_over: Counter[str] = Counter()
    for info in walk(storage, prefix):
        suffix = PurePosixPath(info.uri).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield info
        elif not info.uri.startswith(others):
            passed_over[suffix] += 1
    if passed_over:
        logger.warning("%s", describe_passed_over(passed_over, prefix))


def _from_glob(storage: Storage, pattern: str) -> Iterator[ObjectInfo]:
    """Yield the objects that match a glob."""
    root = _fixed_part(pattern)
    matcher = glob_pattern(pattern)
    return (info for info in walk(storage, root) if matcher.fullmatch(info.uri))


def _from_table(storage: Storage, uri: str, label_versions: bool) -> Iterator[Row]:
    """Yield the rows of a manifest file, with the object info of each image, and if asked the version of its label."""
    suffix = PurePosixPath(uri).suffix.lower()
    with spooled(storage, uri) as file, ThreadPoolExecutor(_LOOKUP_THREADS) as pool:
        rows = _named(file, suffix, uri)
        while named := list(islice(rows, _LOOKUP_BATCH)):
            # One batch at a time is looked up in parallel, so the file may have any length.
            uris = [image for image, _ in named] + [label for _, label in named if label and label_versions]
            found = dict(zip(uris, pool.map(partial(_lookup, storage), uris), strict=True))
            for image, label in named:
                label_info = found.get(label) if label and label_versions else None
                yield image, label or None, found[image], None if label_info is None else label_info.version


def _named(file: IO[bytes], suffix: str, uri: str) -> Iterator[tuple[str, str | None]]:
    """Yield (image, label) of each row of a manifest file.

    Raises:
        ConfigError: If the content does not match the file's suffix, there is no column `image_uri`, or a row has no
            text there.
    """
    try:
        for number, (image, label) in enumerate(_stored_rows(file, suffix), start=1):
            if not isinstance(image, str) or not image:
                raise ConfigError(
                    f"row {number} of {uri} has the `image_uri` {image!r}: give it the URI of an image, or remove it"
                )
            yield image, label
    except (pa.ArrowException, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{uri} is not a manifest with a column `image_uri`: {error}") from error


def _stored_rows(file: IO[bytes], suffix: str) -> Iterator[tuple[Any, str | None]]:
    """Yield (image, label) of each row as the file has them; the image may be null or no text."""
    if suffix in (".txt", ".lst"):
        yield from ((line, None) for line in (raw.decode().strip() for raw in file) if line)
    elif suffix in (".jsonl", ".ndjson"):
        for row in (json.loads(raw) for raw in file if raw.strip()):
            yield row["image_uri"], row.get("label_uri")
    else:
        for batch in pq.ParquetFile(file).iter_batches() if suffix == ".parquet" else pyarrow.csv.open_csv(file):
            yield from _columns(batch)


def _columns(batch: pa.RecordBatch) -> Iterator[tuple[Any, str | None]]:
    """Return (image, label) of each row of a batch; the label column is optional."""
    images = batch.column("image_uri").to_pylist()
    labels = batch.column("label_uri").to_pylist() if "label_uri" in batch.schema.names else [None] * len(images)
    return zip(images, labels, strict=True)


def _lookup(storage: Storage, uri: str) -> ObjectInfo | None:
    """Return the object info of a URI, or None if there is no such object."""
    try:
        return storage.info(uri)
    except ObjectMissing:
        return None


def _is_glob(images: str) -> bool:
    return "*" in images or "?" in images


def _fixed_part(images: str) -> str:
    """Return the folder above the first wildcard, or the whole URI if it has none."""
    if not _is_glob(images):
        return images
    return re.split(r"[*?]", images, maxsplit=1)[0].rpartition("/")[0]


def _add_labels(table: ManifestTable, root: str, files: Iterable[ObjectInfo]) -> None:
    """Add label files by their stems, in blocks.

    A stem with the ending of an annotation tool is also added without this ending, as an alias.
    """
    labels = (info for info in files if PurePosixPath(info.uri).suffix.lower() in IMAGE_SUFFIXES)
    while block := list(islice(labels, _LABEL_BATCH)):
        stems = [(_stem(info.uri, root), info.uri, info.version) for info in block]
        table.add_labels(stems)
        shortened = ((_without_ending(stem), uri, version, stem) for stem, uri, version in stems)
        table.add_label_aliases(entry for entry in shortened if entry[0] != entry[3])


def _without_ending(stem: str) -> str:
    """Return a stem without the ending of an annotation tool and without the image's own extension."""
    for ending in _LABEL_ENDINGS:
        stem = stem.removesuffix(ending)
    shorter, suffix = posixpath.splitext(stem)
    return shorter if suffix.lower() in IMAGE_SUFFIXES else stem


def _stem(uri: str, root: str) -> str:
    """Return the path of a URI relative to `root`, without extension."""
    return posixpath.splitext(uri.removeprefix(root.rstrip("/")).lstrip("/"))[0]
