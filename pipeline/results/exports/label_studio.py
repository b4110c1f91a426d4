"""Export of pre-annotations for Label Studio: tasks to import, and the labeling configuration that they need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from pipeline.results.exports.masks import Classes, Exported
from pipeline.results.exports.target import Target
from pipeline.results.statistics.scores import runs_of

__all__ = ["brush_rle", "write_label_studio"]

# Bits of the four kinds of run lengths, and bits of a value.
_SIZES = (3, 4, 8, 16)
_WORD = 8
_LONGEST = 2 ** _SIZES[-1]
_CHANNELS = 4  # a brush is an RGBA picture, 0 or 255 in all four


def write_label_studio(masks: Iterable[Exported], classes: Classes, target: Target) -> int:
    """Write `tasks.json` and `labelling.xml`.

    Tasks refer to images by their URIs, which Label Studio must be able to read.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.

    Returns:
        Number of images that were written.
    """
    count = 0
    with target.long_file("tasks.json") as file:
        file.write("[")
        for count, each in enumerate(masks, start=1):
            file.write((",\n" if count > 1 else "\n") + json.dumps(_task(each, classes)))
        file.write("]\n")
    target.write("labelling.xml", _configuration(classes).encode())
    return count


def brush_rle(region: NDArray[np.bool_]) -> list[int]:
    """Encode a (H, W) region in Label Studio's run lengths of an RGBA image; return the bytes as numbers.

    The header has three fields: the number of values (32 bits), the bits of a value less 1 (5 bits), and the bits of
    each of the four kinds of lengths less 1 (4 bits each). Then come runs: a bit that is 1 for a repeated value, two
    bits for the kind of the length, the length less 1, and the value.
    """
    bits = [f"{region.size * _CHANNELS:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for value, length in zip(*runs_of(region.ravel()), strict=True):
        # Each run takes the shortest kind of length that holds it; the longest runs are divided.
        left = int(length) * _CHANNELS
        while left:
            part = min(left, _LONGEST)
            index = next(at for at, size in enumerate(_SIZES) if part <= 2**size)
            bits.append(f"1{index:02b}{part - 1:0{_SIZES[index]}b}{255 * int(value):08b}")
            left -= part
    text = "".join(bits)
    # Zeros fill the last byte.
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _task(each: Exported, classes: Classes) -> dict[str, Any]:
    """Return the task of an image, with its regions as a prediction whose score falls with the mean entropy."""
    results = list(_results(each, classes))
    prediction = {"model_version": "dilated-context", "score": -each.entropy, "result": results}
    data = {"image": each.uri, "mean_entropy": each.entropy, "mean_iou": each.mean_iou}
    return {"data": data, "predictions": [prediction]}


def _results(each: Exported, classes: Classes) -> Iterator[dict[str, Any]]:
    """Yield a brush for each chosen class that occurs in the mask."""
    for class_id in classes.chosen:
        region = each.mask == class_id
        if region.any():
            value = {"format": "rle", "rle": brush_rle(region), "brushlabels": [classes.names[class_id]]}
            names = {"from_name": "brush", "to_name": "image", "type": "brushlabels"}
            height, width = each.size
            yield {"id": str(class_id), **names, "original_width": width, "original_height": height, "value": value}


def _configuration(classes: Classes) -> str:
    """Return the XML of the labeling configuration: an image, and a brush for each chosen class."""
    labels = "\n".join(
        f"    <Label value={quoteattr(classes.names[each])} background={quoteattr(classes.hex_colour(each))}/>"
        for each in classes.chosen
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="brush" toName="image">\n{labels}\n  </BrushLabels>\n</View>\n'
    )
