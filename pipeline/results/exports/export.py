"""One export, start to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.data.storage import Storage
from pipeline.results.exports.classes import Classes, chosen_classes
from pipeline.results.exports.coco import write_coco
from pipeline.results.exports.cvat import write_cvat
from pipeline.results.exports.geojson import write_geojson
from pipeline.results.exports.label_studio import write_label_studio
from pipeline.results.exports.masks import Exported, Order, chosen_masks
from pipeline.results.exports.png import write_color_png, write_index_png
from pipeline.results.exports.target import Target
from pipeline.results.tables import Run

__all__ = ["FORMATS", "Export", "Request", "export_run"]

_Writer = Callable[[Iterable[Exported], Classes, Target], int]
# People correct so many masks in an afternoon.
_TO_LABEL = 50


@dataclass(frozen=True)
class _Format:
    """How a format is written, and which images it takes if nothing is said."""

    write: _Writer
    images: int | None = None
    order: Order = "manifest"


FORMATS = {
    "index-png": _Format(write_index_png),
    "color-png": _Format(write_color_png),
    "coco": _Format(write_coco),
    "geojson": _Format(write_geojson),
    "label-studio": _Format(write_label_studio, _TO_LABEL, "uncertain"),
    "cvat": _Format(write_cvat, _TO_LABEL, "uncertain"),
}


@dataclass(frozen=True)
class Request:
    """What is to be exported.

    Attributes:
        to: a name in `FORMATS`.
        folder: URI for the files.
        images: at most so many; None = the format's default.
        order: which first; None = the format's default.
        classes: names; None = all.
        tolerance: of outlines, pixels; `geojson` only.
        label_values: Whether `index-png` writes the values of the run's label files in place of class ids.
    """

    to: str
    folder: str
    images: int | None = None
    order: Order | None = None
    classes: Sequence[str] | None = None
    tolerance: float = 0.0
    label_values: bool = False


@dataclass(frozen=True)
class Export:
    """What was written: the folder, how many images, and how many of the run have no mask."""

    folder: str
    images: int
    failed: int


def export_run(output: str, request: Request, storage: Storage | None = None) -> Export:
    """Exports the masks of a committed run, replacing files of the same names.

    Args:
        output: URI of the run.
        request: what, and where to.
        storage: how to read and write; None = default retries.

    Raises:
        IncompleteRun: if nothing is committed there.
        ConfigError: if the request makes no sense for this run; the message says why.
    """
    run, chosen = Run(output, storage), FORMATS[request.to]
    images = chosen.images if request.images is None else request.images
    masks = chosen_masks(run, images, request.order or chosen.order)
    write: _Writer = chosen.write
    if request.to == "geojson":
        write = partial(write_geojson, tolerance=request.tolerance)
    elif request.to == "index-png" and request.label_values:
        write = partial(write_index_png, values=run.label_space().file_values())
    target = Target(run, request.folder)
    return Export(target.folder, write(masks, chosen_classes(run, request.classes), target), run.success["errors"])
