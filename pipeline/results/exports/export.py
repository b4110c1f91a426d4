"""Export of a run's masks from start to end: format, choice of images, destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.data.planned_files import PlannedFiles, check_target
from pipeline.data.storage import Storage
from pipeline.results.exports.coco import write_coco
from pipeline.results.exports.cvat import write_cvat
from pipeline.results.exports.geojson import polygon_libraries, write_geojson
from pipeline.results.exports.label_studio import write_label_studio
from pipeline.results.exports.masks import (
    Classes,
    Exported,
    Order,
    chosen_classes,
    chosen_masks,
    refuse_unknown_order,
    write_color_png,
    write_index_png,
)
from pipeline.results.exports.target import Target
from pipeline.results.tables import Run

__all__ = ["FORMATS", "Export", "Request", "export_run", "plan_export"]

_Writer = Callable[[Iterable[Exported], Classes, Target], int]
# Default number of images for labeling tools: about as many masks as people correct in an afternoon.
_TO_LABEL = 50


@dataclass(frozen=True)
class _Format:
    """Writer of a format, and its default choice of images.

    Attributes:
        write: Function that writes the masks and returns the number of images.
        files: Names of the files below the folder of the export; `*` stands for the names of the images.
        images: Largest number of images; None: all.
        order: Order of the images, which decides the choice of the first ones.
    """

    write: _Writer
    files: tuple[str, ...]
    images: int | None = None
    order: Order = "manifest"


FORMATS = {
    "index-png": _Format(write_index_png, ("*.png",)),
    "color-png": _Format(write_color_png, ("*.png",)),
    "coco": _Format(write_coco, ("annotations.json",)),
    "geojson": _Format(write_geojson, ("*.geojson",)),
    "label-studio": _Format(write_label_studio, ("tasks.json", "labelling.xml"), _TO_LABEL, "uncertain"),
    "cvat": _Format(write_cvat, ("annotations.xml",), _TO_LABEL, "uncertain"),
}


@dataclass(frozen=True)
class Request:
    """Request for an export: format, destination and choice of images.

    Attributes:
        to: Name of the format in `FORMATS`.
        folder: URI of the folder for the files.
        images: Largest number of images; None: the format's default.
        order: Order of the images, which decides the choice of the first ones; None: the format's default.
        classes: Names of the exported classes; None: all.
        tolerance: Pixels by which an outline may move to have fewer points; `geojson` only.
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
    """Result of an export.

    Attributes:
        folder: URI of the folder, without a slash at the end.
        images: Number of images that were written.
        failed: Number of images of the run that have no mask.
    """

    folder: str
    images: int
    failed: int


def export_run(output: str, request: Request, storage: Storage | None = None) -> Export:
    """Export the masks of a committed run; files of the same names are replaced.

    Args:
        output: URI of the run.
        request: Format, destination and choice of images.
        storage: Storage of the run and of the export; None: default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        ConfigError: If the request does not fit the run; the message gives the reason.
    """
    run, images, order, classes, target = _prepare(output, request, storage)
    masks = chosen_masks(run, images, order)
    # Options of a single format are bound to its writer, so that all writers are called alike.
    write: _Writer = FORMATS[request.to].write
    if request.to == "geojson":
        write = partial(write_geojson, tolerance=request.tolerance)
    elif request.to == "index-png" and request.label_values:
        write = partial(write_index_png, values=run.label_space().file_values())
    return Export(target.folder, write(masks, classes, target), run.success["errors"])


def plan_export(output: str, request: Request, storage: Storage | None = None) -> PlannedFiles:
    """Return the files that `export_run` would write; no mask is read.

    Args:
        output: URI of the run.
        request: Format, destination and choice of images.
        storage: Storage of the run and of the export; None: default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        ConfigError: If the request does not fit the run; the message gives the reason.
        StorageError: If nothing can be written to the destination.
    """
    run, images, order, classes, target = _prepare(output, request, storage)
    if request.to == "geojson":
        polygon_libraries()
    check_target(run.storage, request.folder)
    segmented = run.success["images"] - run.success["errors"]
    count = segmented if images is None else min(images, segmented)
    content = f"{count:,} images, {len(classes.chosen)} classes; order {order}"
    return PlannedFiles(target.folder, dict.fromkeys(FORMATS[request.to].files, content))


def _prepare(output: str, request: Request, storage: Storage | None) -> tuple[Run, int | None, Order, Classes, Target]:
    """Check a request; return the run, the largest number of images, their order, the classes and the destination."""
    run = Run(output, storage)
    chosen = FORMATS[request.to]
    images = chosen.images if request.images is None else request.images
    order = request.order or chosen.order
    refuse_unknown_order(run, order)
    return run, images, order, chosen_classes(run, request.classes), Target(run, request.folder)
