"""Masks of a run in a chosen order, with their classes, and the two exports as PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.frozen_table import temporary_database
from pipeline.data.labels import decode_mask, encode_values
from pipeline.errors import ConfigError
from pipeline.results.exports.target import Target
from pipeline.results.statistics.top import Top
from pipeline.results.tables import Run

__all__ = [
    "Classes",
    "Exported",
    "Order",
    "chosen_classes",
    "chosen_masks",
    "refuse_unknown_order",
    "write_color_png",
    "write_index_png",
]


@dataclass(frozen=True)
class Classes:
    """Classes of a run, and the choice of those that are exported.

    Attributes:
        names: Names of all classes, by id.
        colours: RGB colors of all classes, 0–255, by id.
        chosen: Ids of the exported classes, in ascending order.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    chosen: tuple[int, ...]

    def palette(self) -> NDArray[np.uint8]:
        """Return (256, 3) uint8 RGB colors by class id; black for classes that were not chosen."""
        palette = np.zeros((256, 3), np.uint8)
        for class_id in self.chosen:
            palette[class_id] = self.colours[class_id]
        return palette

    def hex_colour(self, class_id: int) -> str:
        """Return the color of a class as `#rrggbb`."""
        return "#" + bytes(self.colours[class_id]).hex()


def chosen_classes(run: Run, names: Sequence[str] | None) -> Classes:
    """Choose all classes of a run, or those with the given names.

    Args:
        run: Committed run.
        names: Names of the exported classes; None: all classes.

    Raises:
        ConfigError: If the run has no class of a given name.
    """
    known = tuple(run.classes)
    if unknown := [name for name in names or () if name not in known]:
        raise ConfigError(
            f"--classes names {unknown[0]!r}, which is not a class of the run: choose from {', '.join(known)}"
        )
    chosen = tuple(each for each, name in enumerate(known) if names is None or name in names)
    return Classes(known, tuple((r, g, b) for r, g, b in run.success["palette"]), chosen)


Order = Literal["manifest", "uncertain", "worst"]
_COLUMNS = ("image_uri", "status", "height", "width", "mask", "mean_entropy", "mean_iou")
_KEYS: dict[Order, tuple[str, float]] = {"uncertain": ("mean_entropy", 1.0), "worst": ("mean_iou", -1.0)}


@dataclass(frozen=True)
class Exported:
    """Segmented image to export.

    Attributes:
        uri: URI of the image.
        name: Path of the image below the folder that all images of the run share, without extension.
        size: Height and width in pixels.
        png: Mask as stored, a palette PNG whose values are class ids.
        entropy: Mean entropy of the class probabilities, in nats.
        mean_iou: Mean IoU, 0–1; None without a label.
    """

    uri: str
    name: str
    size: tuple[int, int]
    png: bytes
    entropy: float
    mean_iou: float | None

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """Return the (H, W) class ids of the mask, decoded on first use."""
        return decode_mask(self.png)


def chosen_masks(run: Run, images: int | None = None, order: Order = "manifest") -> Iterator[Exported]:
    """Yield the segmented images of a run, with one file of `predictions` in memory at a time.

    Failed images have no mask, and are left out.

    Args:
        run: Committed run.
        images: Largest number of images; None: all.
        order: `manifest` for the manifest's order; `uncertain` for the highest mean entropy first; `worst` for the
            lowest mean IoU first.

    Raises:
        ConfigError: If the worst images of a run without labels are requested, or two images would have the same name.
    """
    if order == "manifest":
        rows = _in_order(run, images)
    else:
        # First the keys of all rows are compared, then only the masks of the chosen rows are fetched.
        rows = (run.row("predictions/", position, _COLUMNS) for position in _first(run, images, order))
    folder = _shared_folder(run)
    names = _Names()
    for row in rows:
        name = names.unique(_without_extension(row["image_uri"].removeprefix(folder)), row["image_uri"])
        size = (row["height"], row["width"])
        yield Exported(row["image_uri"], name, size, row["mask"]["bytes"], row["mean_entropy"], row["mean_iou"])


def refuse_unknown_order(run: Run, order: Order) -> None:
    """Raise ConfigError if the worst images of a run without labels are requested."""
    if order == "worst" and run.success["mean_iou"] is None:
        raise ConfigError(f"{run.output} has no labels, so its worst images are unknown: choose --order uncertain")


class _Names:
    """Names that are taken, in a temporary file; each may belong to one image only."""

    def __init__(self) -> None:
        self._database = temporary_database("CREATE TABLE taken (name TEXT PRIMARY KEY, uri TEXT) WITHOUT ROWID")
        # One transaction, which is never committed: nobody else reads the file.
        self._database.execute("BEGIN")

    def unique(self, name: str, uri: str) -> str:
        """Return `name`; raise ConfigError if another image has it already."""
        found = self._database.execute("SELECT uri FROM taken WHERE name = ?", (name,)).fetchone()
        if found:
            raise ConfigError(
                f"{found[0]} and {uri} would both be exported as {name!r}: export them from separate "
                "runs, or limit the export with --images"
            )
        self._database.execute("INSERT INTO taken VALUES (?, ?)", (name, uri))
        return name


def _in_order(run: Run, images: int | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of the first segmented images in manifest order; None: of all."""
    left = images
    for part in run.tables("predictions/", _COLUMNS):
        # Row by row: only one mask at a time is a Python object of its own.
        for batch in part.filter(pc.equal(part["status"], "ok")).to_batches(max_chunksize=1):
            if left is not None:
                if not left:
                    return
                left -= 1
            yield from batch.to_pylist()


def _first(run: Run, images: int | None, order: Order) -> list[int]:
    """Return the positions of the first rows in an order; rows without a value, such as failed ones, are left out."""
    refuse_unknown_order(run, order)
    column, sign = _KEYS[order]
    top = Top(run.success["images"] if images is None else images)
    start = 0
    for part in run.tables("predictions/", [column]):
        keys = sign * part[column].to_numpy().astype(np.float64)
        top.add(keys, np.arange(start, start + part.num_rows))
        start += part.num_rows
    return [int(position) for position in top.positions]


def _shared_folder(run: Run) -> str:
    """Return the deepest folder that holds all images, with a slash at the end."""
    # URIs are sorted, so the common prefix of the first and the last one is common to all.
    first = last = ""
    for table in run.tables("manifest/", ["image_uri"]):
        if table.num_rows:
            first = first or table["image_uri"][0].as_py()
            last = table["image_uri"][-1].as_py()
    length = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[: first.rfind("/", 0, length) + 1]


def _without_extension(path: str) -> str:
    # Parts like `..` are removed, because a path must not lead out of the folder of the export.
    parts = [part for part in PurePosixPath(path).parts if part not in ("..", "/")]
    return str(PurePosixPath(*parts).with_suffix(""))


def write_index_png(
    masks: Iterable[Exported], classes: Classes, target: Target, values: Sequence[int] | None = None
) -> int:
    """Write the stored palette PNGs, byte for byte, whose values are class ids; classes not chosen stay in them.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.
        values: Value of each class, by class id, for gray files in the values of label files; None: class ids.

    Returns:
        Number of images that were written.
    """
    count = 0
    for each in masks:
        target.write(f"{each.name}.png", each.png if values is None else encode_values(each.mask, values))
        count += 1
    return count


def write_color_png(masks: Iterable[Exported], classes: Classes, target: Target) -> int:
    """Write RGB PNGs in the colors of the palette; pixels of classes that were not chosen are black.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.

    Returns:
        Number of images that were written.
    """
    palette = classes.palette()
    count = 0
    for each in masks:
        sink = io.BytesIO()
        Image.fromarray(np.take(palette, each.mask, axis=0)).save(sink, "PNG")
        target.write(f"{each.name}.png", sink.getvalue())
        count += 1
    return count
