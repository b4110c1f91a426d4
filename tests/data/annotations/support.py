"""Helpers of the annotation tests: sources, painting, and reading back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.annotations.paint import Painted, plan_painting
from pipeline.data.storage import join
from tests.shared import STORAGE

FILES = Path(__file__).parent / "files"
HEIGHT = 12
WIDTH = 16


def paint(
    source: str | Path,
    output: str | Path,
    images: str | None = None,
    classes: str | None = None,
    uncovered: Literal["background", "ignore"] = "background",
) -> Painted:
    plan = plan_painting(str(source), str(output), images=images, classes=classes, uncovered=uncovered, storage=STORAGE)
    return plan.paint()


def read_png(output: str | Path, name: str) -> NDArray[Any]:
    """Return the stored values of a label file."""
    return np.array(Image.open(io.BytesIO(STORAGE.read(join(str(output), "labels", f"{name}.png")))))


def read_classes_csv(output: str | Path) -> list[str]:
    return STORAGE.read(join(str(output), "classes.csv")).decode().splitlines()[1:]


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def folder_content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco(
    objects: Sequence[tuple[int, int, Any]],
    categories: Sequence[Mapping[str, Any]] = ({"id": 7, "name": "road"}, {"id": 3, "name": "car"}),
    names: Sequence[str] = ("a.jpg",),
) -> dict[str, Any]:
    """Return COCO JSON of objects (image id, category id, segmentation); image ids count from 1."""
    return {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}
            for number, (image, category, segmentation) in enumerate(objects, start=1)
        ],
        "categories": [dict(category) for category in categories],
    }


def brush_result(label: str, rle: Sequence[int], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    value = {"format": "rle", "rle": list(rle), "brushlabels": [label]}
    return ls_result("brushlabels", value, height, width)


def ls_result(kind: str, value: Mapping[str, Any], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    names = {"id": "x", "from_name": "tag", "to_name": "image", "image_rotation": 0, "type": kind}
    return {**names, "original_height": height, "original_width": width, "value": dict(value)}


def ls_task(results: Sequence[Mapping[str, Any]], image: str = "s3://in/x/a.jpg", **changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "was_cancelled": False, "updated_at": "2025-03-09T22:16:08.728378Z", "result": list(results)}
    return {"id": 5, "data": {"image": image}, "annotations": [annotation], "predictions": [], **changes}
