"""Export as one COCO JSON: an annotation per image and class, its region as compressed run lengths.

The annotations are semantic, as in COCO-Stuff: a class of an image is one region, regardless of the number of objects.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipeline.results.exports.masks import Classes, Exported
from pipeline.results.exports.target import Target

__all__ = ["write_coco"]


def write_coco(masks: Iterable[Exported], classes: Classes, target: Target) -> int:
    """Write `annotations.json`, in which the `file_name` of an image is its URI.

    Ids count from 1; category ids are class ids plus 1.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.

    Returns:
        Number of images that were written.
    """
    images = number = 0
    # The masks are read once, but the file lists images and annotations apart: images wait in a temporary file.
    with target.long_file("annotations.json") as file, tempfile.TemporaryFile("w+", encoding="utf-8") as waiting:
        file.write(f'{{"categories": {json.dumps(_categories(classes))},\n"annotations": [')
        for images, each in enumerate(masks, start=1):
            image = {"id": images, "file_name": each.uri, "height": each.size[0], "width": each.size[1]}
            waiting.write(_item(image, first=images == 1))
            for annotation in _annotations(each, classes, images):
                number += 1
                file.write(_item({"id": number, **annotation}, first=number == 1))
        file.write('],\n"images": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write("]}\n")
    return images


def _item(item: dict[str, Any], *, first: bool) -> str:
    """Return an item of a JSON array on a line of its own, with a comma before it unless it is the first."""
    return ("\n" if first else ",\n") + json.dumps(item)


def _categories(classes: Classes) -> list[dict[str, Any]]:
    return [
        {"id": each + 1, "name": classes.names[each], "color": list(classes.colours[each])} for each in classes.chosen
    ]


def _annotations(each: Exported, classes: Classes, image_id: int) -> Iterator[dict[str, Any]]:
    """Yield an annotation, without its id, for each chosen class that occurs in the mask."""
    present = np.bincount(each.mask.ravel(), minlength=256)
    for class_id in classes.chosen:
        if not present[class_id]:
            continue
        # COCO's run lengths go column by column.
        region = coco_mask.encode(np.asfortranarray(each.mask == class_id).view(np.uint8))
        yield {
            "image_id": image_id,
            "category_id": class_id + 1,
            "segmentation": {"size": region["size"], "counts": region["counts"].decode()},
            "area": int(coco_mask.area(region)),
            "bbox": [float(value) for value in coco_mask.toBbox(region)],
            "iscrowd": 0,
        }
