"""Export as folders of PNG files with class ids, or with the colors of the classes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from pipeline.data.labels import encode_values
from pipeline.results.exports.masks import Classes, Exported
from pipeline.results.exports.target import Target

__all__ = ["write_color_png", "write_index_png"]


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
