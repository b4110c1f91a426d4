"""Road, markings, curbs and pavements."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from demo.street.camera import NEAR, Floats
from demo.street.canvas import CLASS_IDS, Canvas, Region
from demo.street.layout import Street
from demo.street.light import linear
from demo.street.noise import Noise
from demo.street.shadows import Shadows

__all__ = ["draw_ground"]

_SHADOW_STEP = 3  # shadows are computed for one pixel of 3x3, since their edges are soft
_STRIPE = 0.5  # width in meters of one stripe of a zebra crossing


def draw_ground(canvas: Canvas, street: Street, shadows: Shadows, noise: Noise, rng: np.random.Generator) -> None:
    """Paint everything below the horizon: the road up to half its width, and pavement beyond it."""
    camera = canvas.camera
    top = max(0, int(camera.horizon) + 1)
    shape = (camera.height - top, camera.width)
    region = Region(slice(top, camera.height), slice(0, camera.width), np.ones(shape, bool))
    x, z, depth = _spread(canvas, region)
    lit = _soft_shadows(x, z, shadows)
    colour = _materials(x, z, depth, street, noise, rng)
    light = canvas.light.on((0, 1, 0), lit)
    canvas.paint(region, colour * light, "pavement", depth)
    # Everything was labeled pavement above; relabel the road.
    on_road = np.abs(x) < street.road
    canvas.label[region.rows, region.columns][on_road] = CLASS_IDS["road"]


def _spread(canvas: Canvas, region: Region) -> tuple[Floats, Floats, Floats]:
    """Return the ground under each pixel: x, z and depth in meters, (h, w) each."""
    camera = canvas.camera
    rows, columns = region.centres()
    x, y, z = camera.rays(rows, columns)
    depth = np.maximum(camera.elevation / np.maximum(-y, 1e-4), NEAR).astype(np.float32)
    return camera.x + depth * x, depth * z, np.broadcast_to(depth, (len(rows), x.shape[1]))


def _soft_shadows(x: Floats, z: Floats, shadows: Shadows) -> Floats:
    """Return the share of sunlight on the ground, (h, w), interpolated from a coarse grid."""
    step = _SHADOW_STEP
    coarse = shadows.lit(x[::step, ::step], np.float32(0), z[::step, ::step])
    size = (x.shape[1], x.shape[0])
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))


def _materials(x: Floats, z: Floats, depth: Floats, street: Street, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of the ground before lighting, (h, w, 3)."""
    across = np.abs(x)
    # Fade out detail with distance: texture finer than a pixel would only flicker.
    near = np.exp(-depth / 18)
    road = _asphalt(x, z, near, noise, rng)
    road = _blend(road, linear((206, 204, 196)), _markings(x, z, street, noise, rng))
    paving = _paving(x, z, near, street, noise, rng)
    colour = np.where((across < street.road)[..., None], road, paving)
    kerb = (across >= street.road) & (across < street.road + 0.16)
    stone = linear((168, 164, 156)) * (1 + 0.1 * noise.clouds(z * 40, x * 40))[..., None]
    colour = np.where(kerb[..., None], stone, colour)
    gutter = np.exp(-(((across - street.road + 0.15) / 0.12) ** 2))
    return colour * (1 - 0.35 * gutter)[..., None]


def _asphalt(x: Floats, z: Floats, near: Floats, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of the road: stains, grain, wheel tracks, cracks and patches."""
    tone = linear(np.array([84, 84, 88]) * rng.uniform(0.75, 1.3) + rng.normal(0, 3, 3))
    worn = 1 + 0.13 * noise.clouds(x * 22, z * 7) + 0.1 * noise.clouds(x * 90 + 99, z * 60)
    grain = 0.16 * noise.grain(x * 70, z * 70) * near
    lanes = 0.1 * np.cos(x * (2 * math.pi / 2.2)) * np.clip(noise.clouds(z * 3, x) + 1, 0, 1)
    cracks = 0.45 * np.exp(-((noise.clouds(x * 26 + 50, z * 26) / 0.035) ** 2)) * near
    patch = noise.cells(np.floor(x / 2.4), np.floor(z / 6.0), 7) < 0.08
    return tone * ((worn + grain + lanes - cracks) * np.where(patch, 0.72, 1.0))[..., None]


def _markings(x: Floats, z: Floats, street: Street, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the share of paint, (h, w): center line, edge lines and zebra crossing."""
    dash = rng.uniform(2, 4)
    gap = rng.uniform(2, 5)
    paint = np.zeros(x.shape, np.float32)
    if rng.random() < 0.8:
        paint = np.maximum(paint, (np.abs(x) < 0.08) & (z % (dash + gap) < dash))
    if rng.random() < 0.45:
        edge = np.abs(np.abs(x) - (street.road - rng.uniform(0.3, 0.5))) < 0.06
        paint = np.maximum(paint, edge)
    if street.crossing is not None:
        bars = (np.floor(x / _STRIPE) % 2 == 0) & (np.abs(x) < street.road - 0.25)
        paint = np.maximum(paint, bars & (np.abs(z - street.crossing - 1.5) < 1.5))
    return paint * np.clip(0.85 + 0.3 * noise.clouds(x * 60, z * 60), 0.1, 1)


def _paving(x: Floats, z: Floats, near: Floats, street: Street, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of the pavement's stones; joints and grain fade out with distance."""
    tone = linear(np.array([152, 146, 140]) * rng.uniform(0.75, 1.15) + rng.normal(0, 6, 3))
    size = rng.choice([0.4, 0.6, 0.9])
    row = np.floor(z / size)
    column = np.floor(x / size + 0.5 * (row % 2))
    stones = 1 + 0.2 * (noise.cells(column, row) - 0.5)
    joint = np.minimum((z / size) % 1, (x / size + 0.5 * (row % 2)) % 1) < 0.05
    worn = 1 + 0.14 * noise.clouds(x * 30 + 7, z * 12) + 0.08 * noise.grain(x * 60, z * 60) * near
    return tone * (stones * worn * (1 - 0.4 * joint * np.exp(-1 / np.maximum(near, 0.05) / 8)))[..., None]


def _blend(below: Floats, above: Floats, share: Floats) -> Floats:
    """Return `below` with `above` painted over it by its share (h, w)."""
    return below + (above - below) * share[..., None]
