"""Regions as polygons: a GeoJSON file per image, in pixels of the image.

x goes right and y down from the image's upper left corner; a pixel is a unit square, so that polygons follow the edges
of pixels. Regions that touch at a corner only are polygons of their own; holes are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.results.exports.classes import Classes
from pipeline.results.exports.masks import Exported
from pipeline.results.exports.target import Target

__all__ = ["polygons", "write_geojson"]


def write_geojson(masks: Iterable[Exported], classes: Classes, target: Target, tolerance: float = 0.0) -> int:
    """Writes `<name>.geojson`, a FeatureCollection with a Feature per region.

    Args:
        masks: to write.
        classes: whose regions.
        target: where.
        tolerance: pixels by which an outline may move, to have fewer points; 0 keeps it exact. Outlines of neighbours
            are simplified each for itself, so that gaps and overlaps of that size may come between them.

    Returns:
        How many images were written.

    Raises:
        ConfigError: if rasterio or shapely is not installed.
    """
    count = 0
    for each in masks:
        features = list(_features(each, classes, tolerance))
        head = {"type": "FeatureCollection", "image_uri": each.uri, "height": each.size[0], "width": each.size[1]}
        collection = {**head, "features": features}
        target.write(f"{each.name}.geojson", json.dumps(collection).encode())
        count += 1
    return count


def polygons(mask: np.ndarray, chosen: Iterable[int], tolerance: float = 0.0) -> Iterator[tuple[int, Any]]:
    """(class id, shapely polygon) of every region of a (H, W) mask of class ids; all of them valid."""
    features, shapely = _libraries()
    wanted = np.isin(mask, list(chosen))
    for geometry, value in features.shapes(mask, mask=wanted, connectivity=4):
        shape = shapely.geometry.shape(geometry)
        if tolerance:
            shape = shape.simplify(tolerance, preserve_topology=True)
        # A ring that touches itself at a corner encloses the same pixels as several that touch each other.
        parts = shape if shape.is_valid else shapely.make_valid(shape)
        for part in getattr(parts, "geoms", (parts,)):
            if part.geom_type == "Polygon" and not part.is_empty:
                yield int(value), part


def _features(each: Exported, classes: Classes, tolerance: float) -> Iterator[dict[str, Any]]:
    _, shapely = _libraries()
    for class_id, polygon in polygons(each.mask, classes.chosen, tolerance):
        properties = {"class_id": class_id, "class_name": classes.names[class_id], "area": polygon.area}
        yield {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(polygon)}


def _libraries() -> tuple[Any, Any]:
    # Not everybody exports polygons, and GDAL is large.
    try:
        import rasterio.features
        import shapely.geometry
    except ImportError as error:
        raise ConfigError(
            f"{error}: polygons need rasterio and shapely, pip install 'dilated-context[exports]'"
        ) from error
    return rasterio.features, shapely
