"""Classes of a run: from a classes file, or a refusal that says what the labels hold and writes a file to fill in."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.data.class_files import IGNORE, ClassRow, classes_csv, find_classes, read_classes
from pipeline.data.datasets.files import DataFolder
from pipeline.data.datasets.layout import WHOLE, LabelledImage
from pipeline.data.datasets.registry import find_layout
from pipeline.data.label_spaces import LABEL_SPACES, OWN
from pipeline.data.labels import label_values
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, DecodeError
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.schema import OwnClasses
from pipeline.training.samples.sources import evenly_spread

__all__ = ["resolve_classes"]

_SAMPLE = 64  # label files that are read where nobody says what they mean
_MOST_VALUES = 256  # more are no classes
_MOST_SHOWN = 20
_THREADS = 8

logger = logging.getLogger(__name__)


def resolve_classes(config: TrainConfig, storage: Storage) -> TrainConfig:
    """Return the configuration with the classes of its data sets, read from --classes or from files in the data.

    Raises:
        ConfigError: If a classes file is wrong, data sets have different classes, or nothing says what labels mean.
    """
    if config.classes is not None:
        own = OwnClasses.of(read_classes(storage, config.classes))
        return config.model_copy(update={"recipe": config.recipe.model_copy(update={"classes": own})})
    if config.recipe.label_space != OWN:
        return config
    files = [find_classes(storage, data) for data in config.data]
    spaces = [None if uri is None else read_classes(storage, uri) for uri in files]
    first = next((space for space in spaces if space is not None), None)
    if first is None:
        raise _nothing_known(config, storage)
    for uri, space in zip(files, spaces, strict=True):
        if space is not None and (unknown := [name for name in space.classes if name not in first.classes]):
            raise ConfigError(
                f"{uri} has the class {unknown[0]!r}, which the first data set lacks: give all data sets the same "
                "classes, such as by jobs/paint_labels.py --classes with the first one's file"
            )
    recipe = config.recipe.model_copy(update={"classes": OwnClasses.of(first)})
    per_data = tuple(None if space in (None, first) else OwnClasses.of(space) for space in spaces)
    for data in (data for data, space in zip(config.data, spaces, strict=True) if space is None):
        logger.warning("%s has no classes file: its labels are read as those of the first data set that has one", data)
    # Left empty where it says nothing, as in every run with one data set.
    return config.model_copy(update={"recipe": recipe, "data_classes": per_data if any(per_data) else ()})


def _nothing_known(config: TrainConfig, storage: Storage) -> ConfigError:
    """Describe a sample of the labels, and write a classes file to fill in."""
    data = config.data[0]
    target = join(config.output, "classes.csv")
    pairs = _some_pairs(config, storage)
    counts, examples, colored = _count(storage, pairs)
    total = sum(counts.values())
    head = f"{data} has no classes.csv and no classes.json, so nothing says what its labels mean"
    if len(counts) > _MOST_VALUES:
        return ConfigError(
            f"{head}: {len(pairs)} of its labels hold more than {_MOST_VALUES} {'colors' if colored else 'values'}, "
            f"as in {examples[next(iter(counts))][0]}; give files whose values are class ids"
        )
    lines = [
        f"  {_shown(value, colored)}  {100 * count / total:6.2f} % of pixels, in {' and '.join(examples[value])}"
        for value, count in counts.most_common(_MOST_SHOWN)
    ]
    if len(counts) > _MOST_SHOWN:
        lines.append(f"  … and {len(counts) - _MOST_SHOWN} more")
    rows = [_row(number, value, colored, several=len(counts) > 2) for number, value in enumerate(sorted(counts))]
    if not storage.write_once(target, classes_csv(rows)):
        _renew(storage, target, rows)
    listing = "\n".join(lines)
    return ConfigError(
        f"{head}. {len(pairs)} of its labels hold:\n{listing}\nGive each a name in {target} (the same name for values "
        f"of one class, {IGNORE} for pixels that count nowhere), then submit again with --classes {target}"
    )


def _renew(storage: Storage, target: str, rows: Sequence[ClassRow]) -> None:
    """Replace an earlier file to fill in, unless somebody has begun to fill it in.

    Raises:
        ConfigError: If that one lacks values that the labels hold now.
    """
    there = storage.read(target).decode("utf-8-sig", errors="replace")
    known = {line.split(",")[0].strip(): line.split(",")[1:2] for line in there.splitlines()[1:]}
    if not any(name and name[0].strip() not in ("", IGNORE) for name in known.values()):
        storage.write(target, classes_csv(rows))
    elif missing := [row.value for row in rows if str(row.value) not in known]:
        raise ConfigError(
            f"{target} lacks the values {missing[:_MOST_SHOWN]}, which the labels hold: add a row for each, then "
            f"submit again with --classes {target}"
        )


def _some_pairs(config: TrainConfig, storage: Storage) -> list[LabelledImage]:
    """Return some pairs of the first data set, evenly spread."""
    folder = DataFolder(storage, config.data[0])
    layout = find_layout(folder, config.layout)
    if not layout.plain_labels:
        raise ConfigError(
            f"{folder.root} is laid out as {layout.name}, whose labels are those of a published data set: choose a "
            "recipe for it, or --layout"
        )
    split = next((name for name in ("train", WHOLE, "val") if layout.has_split(folder, name)), "train")
    pairs = sorted(layout.read(folder, split, LABEL_SPACES["voc"]).pairs, key=lambda pair: pair.image_uri)
    return [pairs[index] for index in evenly_spread(len(pairs), _SAMPLE)]


def _count(storage: Storage, pairs: Sequence[LabelledImage]) -> tuple[Counter[int], dict[int, list[str]], bool]:
    """Return pixels and two example files by value, and whether values are colors (0xRRGGBB)."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda pair: _values(storage, pair.label_uri), pairs))
    colored = any(values.ndim == 3 for values in found)
    counts: Counter[int] = Counter()
    examples: dict[int, list[str]] = defaultdict(list)
    for pair, values in zip(pairs, found, strict=True):
        if colored:
            wide = np.broadcast_to(values if values.ndim == 3 else values[:, :, None], (*values.shape[:2], 3))
            values = (wide.astype(np.uint32) * np.array([2**16, 2**8, 1], np.uint32)).sum(axis=2)
        for value, count in zip(*(each.tolist() for each in np.unique(values, return_counts=True)), strict=True):
            counts[value] += count
            if len(examples[value]) < 2:
                examples[value].append(pair.label_uri.rsplit("/", 1)[-1])
    return counts, examples, colored


def _values(storage: Storage, uri: str) -> NDArray[np.generic]:
    try:
        return label_values(storage.read(uri))
    except DecodeError as error:
        raise ConfigError(f"{uri} cannot be trained on: {error}") from error


def _shown(value: int, colored: bool) -> str:
    return f"color {_color(value)}" if colored else f"value {value:>5}"


def _row(number: int, value: int, colored: bool, *, several: bool) -> ClassRow:
    """Return a row to fill in; 255 beside other values usually counts nowhere."""
    if colored:
        red, green, blue = _color(value)
        # A gray may also lie in files of one channel, where it is a value; other colors get ids that no such file has.
        return ClassRow(red if red == green == blue else 256 + number, "", (red, green, blue))
    return ClassRow(value, IGNORE if value == 255 and several else "")


def _color(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255
