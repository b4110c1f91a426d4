"""Houses along the street: two walls each, with windows, doors, shops and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.street.camera import Floats
from demo.street.canvas import Canvas, Region
from demo.street.layout import Lot, Street
from demo.street.light import linear
from demo.street.noise import Noise
from demo.street.shadows import Shadows

__all__ = ["DEPTH", "draw_house"]

DEPTH = 12.0  # meters from front to back
_WALLS = (
    *((150, 84, 66), (128, 74, 62), (170, 112, 86)),  # brick
    *((214, 202, 178), (226, 214, 196), (196, 178, 142), (188, 196, 196), (214, 170, 150), (178, 190, 170)),  # plaster
    *((150, 148, 144), (122, 124, 128)),  # concrete
)
_ROOFS = ((120, 66, 52), (92, 84, 84), (70, 74, 82), (138, 88, 66))
_FASCIAS = ((40, 92, 72), (150, 36, 40), (36, 58, 116), (224, 190, 70), (60, 60, 64), (216, 216, 210))


@dataclass(frozen=True)
class _Style:
    """Materials and dimensions of one house.

    Attributes:
        wall: Linear RGB of the walls.
        brick: Share of brickwork in the texture.
        floor, bay: Height and width of one window's cell in meters.
        window: Share of the cell that the window takes, in height and width.
        shop: Whether the ground floor has shop windows.
        trim: Linear RGB of frames and ledges.
        fascia: Linear RGB of the board over the shop.
        seed: Offset of the textures, so that houses differ.
    """

    wall: Floats
    brick: float
    floor: float
    bay: float
    window: tuple[float, float]
    shop: bool
    trim: Floats
    fascia: Floats
    seed: int


def draw_house(
    canvas: Canvas, lot: Lot, street: Street, shadows: Shadows, noise: Noise, rng: np.random.Generator
) -> None:
    """Draw the wall along the street, the wall that faces the camera, and in some houses a gable roof."""
    style = _style(rng, lot)
    front = lot.side * street.edge
    back = lot.side * (street.edge + DEPTH)
    gable = rng.random() < 0.45
    roof = linear(_ROOFS[rng.integers(len(_ROOFS))])
    if gable:
        _draw_roof(canvas, lot, front, back, roof, style)
    _draw_wall(canvas, lot, front, back, style, shadows, noise, along=False)
    _draw_wall(canvas, lot, front, back, style, shadows, noise, along=True)


def _style(rng: np.random.Generator, lot: Lot) -> _Style:
    """Choose the style of a house at random; only houses over 7 m may have a shop."""
    choice = int(rng.integers(len(_WALLS)))
    wall = linear(np.clip(np.array(_WALLS[choice]) + rng.normal(0, 9, 3), 20, 240))
    return _Style(
        wall=wall,
        brick=1.0 if choice < 3 else 0.0,
        floor=rng.uniform(2.8, 3.6),
        bay=rng.uniform(1.8, 3.6),
        window=(rng.uniform(0.45, 0.62), rng.uniform(0.35, 0.62)),
        shop=lot.height > 7 and rng.random() < 0.35,
        trim=linear((232, 228, 218)) if rng.random() < 0.6 else wall * np.float32(0.55),
        fascia=linear(_FASCIAS[rng.integers(len(_FASCIAS))]),
        seed=int(rng.integers(1000)),
    )


def _draw_wall(
    canvas: Canvas,
    lot: Lot,
    front: float,
    back: float,
    style: _Style,
    shadows: Shadows,
    noise: Noise,
    *,
    along: bool,
) -> None:
    """Draw one wall: `along` the street at x = front, or across it at z = near."""
    ends = [(front, lot.near), (front, lot.far)] if along else [(front, lot.near), (back, lot.near)]
    corners = [(x, y, z) for x, z in ends for y in (0.0, lot.height)]
    region = canvas.region(canvas.camera.outline([corners[0], corners[1], corners[3], corners[2]]))
    if region is None:
        return
    rows, columns = region.centres()
    x, y, z = canvas.camera.rays(rows, columns)
    # Intersect the ray of each pixel with the plane of the wall, (h, w) meters.
    distance = (front - canvas.camera.x) / _off_zero(x) if along else lot.near / _off_zero(z)
    distance = np.clip(distance, 0.3, 400).astype(np.float32)
    height = canvas.camera.elevation + distance * y
    place = distance * z if along else canvas.camera.x + distance * x
    depth = np.broadcast_to(distance, height.shape)
    normal = (-lot.side, 0.0, 0.0) if along else (0.0, 0.0, -1.0)
    lit = _lit(shadows, place, height, front, lot, region, along=along)
    colour = _facade(canvas, place + style.seed, height, depth, lot.height, style, noise)
    canvas.paint(region, colour * canvas.light.on(normal, lit), "building", depth)


def _lit(
    shadows: Shadows, place: Floats, height: Floats, front: float, lot: Lot, region: Region, *, along: bool
) -> Floats:
    """Return the share of sunlight on a wall, (h, w), computed for one pixel of every 4x4."""
    step = 4
    place, height = np.broadcast_arrays(place, height)
    here = place[::step, ::step]
    up = height[::step, ::step]
    # Rays start 0.1 m off the wall, or the wall would shade itself.
    coarse = shadows.lit(front - 0.1 * lot.side, up, here) if along else shadows.lit(here, up, lot.near - 0.1)
    full = coarse.repeat(step, axis=0).repeat(step, axis=1)
    return full[: region.mask.shape[0], : region.mask.shape[1]]


def _facade(
    canvas: Canvas, place: Floats, height: Floats, depth: Floats, top: float, style: _Style, noise: Noise
) -> Floats:
    """Return the linear RGB of a wall before lighting, (h, w, 3).

    Args:
        canvas: Canvas, whose light the windows reflect.
        place: Meters along the wall of each pixel.
        height: Meters above the road of each pixel.
        depth: Distance in meters of each pixel.
        top: Height of the wall in meters.
        style: Materials and dimensions.
        noise: Textures.
    """
    place = np.broadcast_to(place, height.shape)
    colour: Floats = style.wall * _texture(place, height, depth, style, noise)[..., None]
    # Number of the window's cell, and the position within it from 0 to 1.
    floor = np.floor(height / style.floor)
    bay = np.floor(place / style.bay)
    up = height / style.floor - floor
    across = place / style.bay - bay
    glass = _glass(canvas, floor, bay, up, across, height, noise)
    upper = (floor >= 1) if style.shop else (floor >= 0)
    fits = (floor + 0.9) * style.floor < top
    # Later layers cover earlier ones: wall, frame, glass, shop, ledge, dirt.
    tall, wide = style.window
    inside = _within(up, across, tall, wide) & upper & fits
    frame = _within(up, across, tall + 0.07, wide + 0.08) & upper & fits
    bars = (np.abs(across - 0.5) < 0.02) | (np.abs(up - 0.52 - tall / 5) < 0.015)
    colour = np.where(frame[..., None], style.trim, colour)
    colour = np.where((inside & ~bars)[..., None], glass, colour)
    if style.shop:
        colour = _shop(colour, glass, up, across, floor, style)
    ledge = (height > top - 0.35) | ((up < 0.05) & (floor == 1))
    colour = np.where(ledge[..., None], style.trim * np.float32(0.85), colour)
    # Walls are darker from dirt near the ground and under the ledge.
    dirt = 1 - 0.3 * np.exp(-np.maximum(height, 0) / 0.7) - 0.25 * np.exp(-np.maximum(top - 0.35 - height, 0) / 0.25)
    return colour * dirt[..., None]


def _texture(place: Floats, height: Floats, depth: Floats, style: _Style, noise: Noise) -> Floats:
    """Return the brightness factor of a wall: stains and, if the style has brick, courses and joints."""
    stains = 1 + 0.1 * noise.clouds(place * 9, height * 5) + 0.06 * noise.clouds(place * 60, height * 60)
    if not style.brick:
        return stains
    # Bricks fade out with distance, where they would be finer than a pixel.
    near = np.exp(-depth / 22)
    course = np.floor(height / 0.15)
    brick = noise.cells(np.floor(place / 0.4 + 0.5 * (course % 2)), course) - 0.5
    joint = ((height / 0.15) % 1 < 0.18) | ((place / 0.4 + 0.5 * (course % 2)) % 1 < 0.07)
    return stains * (1 + near * (0.35 * brick + 0.35 * joint))


def _glass(
    canvas: Canvas, floor: Floats, bay: Floats, up: Floats, across: Floats, height: Floats, noise: Noise
) -> Floats:
    """Return the linear RGB of panes, which reflect the sky at different angles; some show a curtain or a lamp."""
    light = canvas.light
    mirror = 0.12 + 0.5 * noise.cells(bay, floor, 1) ** 2 + 0.1 * up
    pane = linear((30, 36, 44)) + light.skyline * mirror[..., None] * 0.8
    kind = noise.cells(bay, floor, 2)
    curtain = (kind > 0.72) & (np.abs(across - 0.5) > 0.1 + 0.2 * noise.cells(bay, floor, 3))
    pane = np.where(curtain[..., None], linear((196, 188, 172)) * np.float32(0.8), pane)
    lamp = noise.cells(bay, floor, 4) < light.lamps
    # The caller multiplies walls by the light; divide by it here, because a lamp's brightness does not depend on it.
    shine = linear((255, 206, 128)) * np.float32(1.15) / np.maximum(light.on((0, 0, -1), 0.0), 0.05)
    return np.where(lamp[..., None], shine, pane)


def _shop(colour: Floats, glass: Floats, up: Floats, across: Floats, floor: Floats, style: _Style) -> Floats:
    """Return `colour` with shop windows and the board above them on the ground floor."""
    ground = floor == 0
    window = ground & (up > 0.14) & (up < 0.74) & (np.abs(across - 0.5) < 0.45)
    board = ground & (up > 0.78) & (up < 0.97)
    colour = np.where(window[..., None], glass * np.float32(0.9), colour)
    return np.where(board[..., None], style.fascia, colour)


def _draw_roof(canvas: Canvas, lot: Lot, front: float, back: float, roof: Floats, style: _Style) -> None:
    """Draw the slope towards the street and the gable that faces the camera; the ridge is 3.2 m above the wall."""
    ridge = lot.height + 3.2
    top = (front + back) / 2
    eaves = front - 0.3 * lot.side
    light = canvas.light
    gable = [(front, lot.height, lot.near), (back, lot.height, lot.near), (top, ridge, lot.near)]
    slope = [(eaves, lot.height - 0.1, lot.near), (top, ridge, lot.near), (top, ridge, lot.far)]
    slope.append((eaves, lot.height - 0.1, lot.far))
    canvas.face(slope, roof * light.on((-0.47 * lot.side, 0.88, 0.0)), "building")
    canvas.face(gable, style.wall * light.on((0.0, 0.0, -1.0)), "building")


def _within(up: Floats, across: Floats, tall: float, wide: float) -> Floats:
    """Return whether a position in a window's cell lies within a rectangle of this height and width."""
    return (np.abs(up - 0.52) < tall / 2) & (np.abs(across - 0.5) < wide / 2)


def _off_zero(values: Floats) -> Floats:
    """Return the values with those near 0 replaced by 1e-5, so that they can be divisors."""
    return np.where(np.abs(values) < 1e-5, np.float32(1e-5), values)
