"""The masks that an export writes: which images, in which order, and under which names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.data.labels import decode_mask
from pipeline.errors import ConfigError
from pipeline.results.tables import Run
from pipeline.results.top import Top

__all__ = ["Exported", "Order", "chosen_masks"]

Order = Literal["manifest", "uncertain", "worst"]
_COLUMNS = ("image_uri", "status", "height", "width", "mask", "mean_entropy", "mean_iou")
_KEYS: dict[Order, tuple[str, float]] = {"uncertain": ("mean_entropy", 1.0), "worst": ("mean_iou", -1.0)}


@dataclass(frozen=True)
class Exported:
    """One segmented image.

    Attributes:
        uri: of the image.
        name: its path below the folder that all images of the run share, without extension.
        size: height and width, pixels.
        png: its mask as stored, a palette PNG whose values are class ids.
        entropy: mean entropy of the class probabilities, nats.
        mean_iou: None without a label.
    """

    uri: str
    name: str
    size: tuple[int, int]
    png: bytes
    entropy: float
    mean_iou: float | None

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W) class ids."""
        return decode_mask(self.png)


def chosen_masks(run: Run, images: int | None = None, order: Order = "manifest") -> Iterator[Exported]:
    """The segmented images of a run, one file of `predictions` in memory at a time; failed ones have no mask.

    Args:
        run: a committed run.
        images: at most so many; None = all.
        order: as in the manifest; most uncertain (highest mean entropy) or worst (lowest mean IoU) first.

    Raises:
        ConfigError: if the worst images of a run without labels are wanted, or two images would have the same name.
    """
    if order == "manifest":
        rows = _in_order(run, images)
    else:
        rows = (run.row("predictions/", position, _COLUMNS) for position in _first(run, images, order))
    folder = _shared_folder(run)
    names = _Names(ordered=order == "manifest")
    for row in rows:
        name = names.unique(_without_extension(row["image_uri"].removeprefix(folder)), row["image_uri"])
        size = (row["height"], row["width"])
        yield Exported(row["image_uri"], name, size, row["mask"]["bytes"], row["mean_entropy"], row["mean_iou"])


class _Names:
    """Names of files, each of one image only. Of images in order of their URIs it remembers a few at a time."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._seen: dict[str, str] = {}

    def unique(self, name: str, uri: str) -> str:
        if self._ordered:
            # All URIs that begin with a name and a dot follow each other.
            self._seen = {
                each: other for each, other in self._seen.items() if name.startswith(f"{each}.") or each == name
            }
        if name in self._seen:
            raise ConfigError(
                f"{self._seen[name]} and {uri} would both be exported as {name!r}: export them from runs of their own, "
                "or choose among them with --images"
            )
        self._seen[name] = uri
        return name


def _in_order(run: Run, images: int | None) -> Iterator[dict[str, Any]]:
    left = images
    for part in run.tables("predictions/", _COLUMNS):
        for batch in part.filter(pc.equal(part["status"], "ok")).to_batches(max_chunksize=1):
            if left is not None:
                if not left:
                    return
                left -= 1
            yield from batch.to_pylist()


def _first(run: Run, images: int | None, order: Order) -> list[int]:
    """Positions of the rows with the greatest keys."""
    column, sign = _KEYS[order]
    if order == "worst" and run.success["mean_iou"] is None:
        raise ConfigError(f"{run.output} has no labels, so its worst images are unknown: choose --order uncertain")
    top, start = Top(run.success["images"] if images is None else images), 0
    for part in run.tables("predictions/", [column]):
        keys = sign * part[column].to_numpy().astype(np.float64)
        top.add(keys, np.arange(start, start + part.num_rows))
        start += part.num_rows
    return [int(position) for position in top.positions]


def _shared_folder(run: Run) -> str:
    """The deepest folder that holds all images; URIs are sorted, so that the first and the last one tell."""
    first = last = ""
    for table in run.tables("manifest/", ["image_uri"]):
        if table.num_rows:
            first, last = first or table["image_uri"][0].as_py(), table["image_uri"][-1].as_py()
    length = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[: first.rfind("/", 0, length) + 1]


def _without_extension(path: str) -> str:
    # A path that leads out of its folder must not lead out of the export's.
    parts = [part for part in PurePosixPath(path).parts if part not in ("..", "/")]
    return str(PurePosixPath(*parts).with_suffix(""))
