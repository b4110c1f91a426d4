"""Export for CVAT in the format "CVAT for images 1.1": one XML file to upload to a task of the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from pipeline.results.exports.masks import Classes, Exported
from pipeline.results.exports.target import Target
from pipeline.results.statistics.scores import runs_of

__all__ = ["write_cvat"]


def write_cvat(masks: Iterable[Exported], classes: Classes, target: Target) -> int:
    """Write `annotations.xml`, in which an image's name is its path below the shared folder, extension included.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.

    Returns:
        Number of images that were written.
    """
    count = 0
    with target.long_file("annotations.xml") as file:
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n{_meta(classes)}')
        for count, each in enumerate(masks, start=1):
            name = each.name + _extension(each.uri)
            height, width = each.size
            file.write(f'<image id="{count - 1}" name={quoteattr(name)} width="{width}" height="{height}">\n')
            file.writelines(_masks(each, classes))
            file.write("</image>\n")
        file.write("</annotations>\n")
    return count


def _masks(each: Exported, classes: Classes) -> Iterator[str]:
    """Yield a mask element for each chosen class that occurs in the mask, cut to its bounding box."""
    for class_id in classes.chosen:
        region = each.mask == class_id
        if not region.any():
            continue
        rows = np.flatnonzero(region.any(axis=1))
        columns = np.flatnonzero(region.any(axis=0))
        box = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        lengths = ", ".join(map(str, _lengths(box)))
        yield (
            f'<mask label={quoteattr(classes.names[class_id])} source="auto" occluded="0" rle="{lengths}" '
            f'left="{columns[0]}" top="{rows[0]}" width="{box.shape[1]}" height="{box.shape[0]}" z_order="0"/>\n'
        )


def _lengths(box: NDArray[np.bool_]) -> list[int]:
    """Return run lengths row by row, outside and inside the region in turn; outside comes first and may be 0."""
    values, lengths = runs_of(box.ravel())
    return [*([0] if values[0] else []), *lengths.tolist()]


def _meta(classes: Classes) -> str:
    """Return the element that defines the labels and their colors."""
    labels = "".join(
        f"<label><name>{escape(classes.names[each])}</name><color>{classes.hex_colour(each)}</color>"
        "<type>mask</type><attributes></attributes></label>\n"
        for each in classes.chosen
    )
    return f"<meta><task><labels>\n{labels}</labels></task></meta>\n"


def _extension(uri: str) -> str:
    """Return the extension of a URI with its dot; an empty text without one."""
    name = uri.rsplit("/", 1)[-1]
    return name[name.rfind(".") :] if "." in name else ""
