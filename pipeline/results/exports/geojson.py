"""Export of regions as polygons: a GeoJSON file per image, in pixels of the image.

The origin is the image's upper left corner; x points right and y points down. A pixel is a unit square, so polygons
follow the edges of pixels. Regions that touch only at a corner are separate polygons; holes are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.results.exports.masks import Classes, Exported
from pipeline.results.exports.target import Target

__all__ = ["polygon_libraries", "polygons", "write_geojson"]


def write_geojson(masks: Iterable[Exported], classes: Classes, target: Target, tolerance: float = 0.0) -> int:
    """Write `<name>.geojson` for each image, a FeatureCollection with a Feature per region.

    Args:
        masks: Segmented images.
        classes: Classes of the run.
        target: Folder of the export.
        tolerance: Pixels by which an outline may move to have fewer points; 0 keeps it exact. Each outline is
            simplified on its own, so gaps and overlaps of that size may appear between neighbors.

    Returns:
        Number of images that were written.

    Raises:
        ConfigError: If rasterio or shapely is not installed.
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
    """Yield (class id, shapely polygon) for every region of a mask; all polygons are valid.

    Args:
        mask: (H, W) class ids.
        chosen: Ids of the classes whose regions are wanted.
        tolerance: Pixels by which an outline may move to have fewer points; 0 keeps it exact.

    Raises:
        ConfigError: If rasterio or shapely is not installed.
    """
    features, shapely = polygon_libraries()
    wanted = np.isin(mask, list(chosen))
    # Connectivity 4: pixels that touch only at a corner belong to separate regions.
    for geometry, value in features.shapes(mask, mask=wanted, connectivity=4):
        shape = shapely.geometry.shape(geometry)
        if tolerance:
            shape = shape.simplify(tolerance, preserve_topology=True)
        # A ring that touches itself at a corner is invalid; it encloses the same pixels as several valid rings.
        parts = shape if shape.is_valid else shapely.make_valid(shape)
        for part in getattr(parts, "geoms", (parts,)):
            if part.geom_type == "Polygon" and not part.is_empty:
                yield int(value), part


def _features(each: Exported, classes: Classes, tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield a GeoJSON Feature for each region of the chosen classes; its area is in square pixels."""
    _, shapely = polygon_libraries()
    for class_id, polygon in polygons(each.mask, classes.chosen, tolerance):
        properties = {"class_id": class_id, "class_name": classes.names[class_id], "area": polygon.area}
        yield {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(polygon)}


def polygon_libraries() -> tuple[Any, Any]:
    """Import rasterio.features and shapely; raise ConfigError if one is not installed."""
    # They are optional, because few users export polygons and GDAL is large.
    try:
        import rasterio.features
        import shapely.geometry
    except ImportError as error:
        raise ConfigError(
            f"{error}: GeoJSON needs rasterio and shapely, pip install 'dilated-context[exports]'"
        ) from error
    return rasterio.features, shapely
