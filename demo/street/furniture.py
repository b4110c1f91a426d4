"""Lamps, masts, bollards, signs and fences."""

from __future__ import annotations

import math

import numpy as np

from demo.street.billboard import Billboard
from demo.street.camera import Floats
from demo.street.canvas import Canvas
from demo.street.layout import Lot, Spot, Street
from demo.street.light import linear
from demo.street.noise import Noise

__all__ = ["draw_bollard", "draw_fence", "draw_lamp", "draw_mast", "draw_sign"]

_STEEL = linear((118, 122, 126))
_RED = linear((206, 32, 40))
_BLUE = linear((28, 84, 168))
_WHITE = linear((238, 238, 234))
_YELLOW = linear((246, 200, 40))
_GREEN = linear((24, 110, 72))
_BLACK = linear((24, 24, 26))


def draw_lamp(canvas: Canvas, spot: Spot, lit: float, rng: np.random.Generator) -> None:
    """Draw a street lamp whose arm reaches over the road."""
    board = Billboard(canvas, spot.x, spot.z, "pole", lit)
    height = rng.uniform(5.5, 8)
    reach = -math.copysign(rng.uniform(0.9, 1.8), spot.x)
    paint = linear((64, 72, 70)) if rng.random() < 0.4 else _STEEL
    board.polygon([(-0.1, 0), (0.1, 0), (0.055, height), (-0.055, height)], paint, round_=0.4)
    board.polygon([(-0.14, 0), (0.14, 0), (0.12, 0.7), (-0.12, 0.7)], paint, round_=0.4)
    board.limb([(0, height - 0.05), (reach * 0.5, height + 0.25), (reach, height + 0.28)], 0.09, paint)
    glow = linear((255, 220, 150)) * np.float32(2.5 if canvas.light.lamps > 0.3 else 0.8)
    board.polygon(
        [
            (reach - 0.3, height + 0.2),
            (reach + 0.3, height + 0.2),
            (reach + 0.2, height + 0.38),
            (reach - 0.2, height + 0.38),
        ],
        paint,
    )
    board.polygon([(reach - 0.25, height + 0.2), (reach + 0.25, height + 0.2), (reach, height + 0.14)], glow)


def draw_mast(canvas: Canvas, spot: Spot, lit: float, rng: np.random.Generator) -> None:
    """Draw a wooden mast with cross-arms."""
    board = Billboard(canvas, spot.x, spot.z, "pole", lit)
    wood = linear((96, 78, 62)) * np.float32(rng.uniform(0.7, 1.2))
    height = rng.uniform(7, 9)
    board.polygon([(-0.15, 0), (0.15, 0), (0.1, height), (-0.1, height)], wood, round_=0.45)
    for y in (height - 0.4, height - 1.2):
        board.polygon([(-0.8, y), (0.8, y), (0.8, y + 0.13), (-0.8, y + 0.13)], wood * np.float32(0.8))
        for x in (-0.7, 0.7):
            board.polygon(
                [(x - 0.05, y + 0.1), (x + 0.05, y + 0.1), (x + 0.05, y + 0.32), (x - 0.05, y + 0.32)], _STEEL
            )


def draw_bollard(canvas: Canvas, spot: Spot, lit: float) -> None:
    """Draw a waist-high post with a reflecting band."""
    board = Billboard(canvas, spot.x, spot.z, "pole", lit)
    board.polygon([(-0.09, 0), (0.09, 0), (0.08, 0.95), (0, 1.02), (-0.08, 0.95)], linear((58, 60, 64)), round_=0.4)
    board.polygon([(-0.085, 0.72), (0.085, 0.72), (0.085, 0.82), (-0.085, 0.82)], _WHITE)


def draw_sign(canvas: Canvas, spot: Spot, lit: float, rng: np.random.Generator) -> None:
    """Draw one or two traffic signs on a post; the post is labeled `pole`."""
    # Signs are lower and larger than real ones. At this resolution, real ones would be specks or above the frame.
    board = Billboard(canvas, spot.x, spot.z, "sign", max(lit, 0.5))
    height = rng.uniform(2.2, 2.9)
    size = rng.uniform(0.36, 0.5)
    post = [(-0.045, 0), (0.045, 0), (0.045, height + 0.1), (-0.045, height + 0.1)]
    board.polygon(post, _STEEL, round_=0.4, class_name="pole")
    for number in range(1 + (rng.random() < 0.3)):
        _PLATES[rng.integers(len(_PLATES))](board, height - 0.98 * size * 2 * number, size)


def _prohibition(board: Billboard, y: float, size: float) -> None:
    board.ellipse((0, y), (size, size), _RED)
    board.ellipse((0, y), (0.72 * size, 0.72 * size), _WHITE)
    for x in (-0.22, 0.24):
        board.ellipse((x * size, y), (0.17 * size, 0.34 * size), _BLACK)


def _no_entry(board: Billboard, y: float, size: float) -> None:
    board.ellipse((0, y), (size, size), _RED)
    board.polygon(_bar(y, 0.65 * size, 0.16 * size), _WHITE)


def _mandatory(board: Billboard, y: float, size: float) -> None:
    board.ellipse((0, y), (size, size), _BLUE)
    board.limb([(0, y - 0.5 * size), (0, y + 0.45 * size)], 0.2 * size, _WHITE)
    board.limb(
        [(-0.35 * size, y + 0.1 * size), (0, y + 0.5 * size), (0.35 * size, y + 0.1 * size)], 0.18 * size, _WHITE
    )


def _warning(board: Billboard, y: float, size: float) -> None:
    for scale, colour in ((1.15, _RED), (0.72, _WHITE)):
        corners = [(0.0, y + scale * size)]
        corners += [(side * 0.95 * scale * size, y - 0.62 * scale * size) for side in (1, -1)]
        board.polygon(corners, colour)
    board.limb([(0, y - 0.1 * size), (0, y + 0.36 * size)], 0.15 * size, _BLACK)


def _priority(board: Billboard, y: float, size: float) -> None:
    for scale, colour in ((1.1, _WHITE), (0.8, _YELLOW)):
        board.polygon([(0, y + scale * size), (scale * size, y), (0, y - scale * size), (-scale * size, y)], colour)


def _direction(board: Billboard, y: float, size: float) -> None:
    colour = _GREEN if size > 0.43 else _BLUE
    board.polygon(_bar(y, 1.9 * size, 0.62 * size), _WHITE)
    board.polygon(_bar(y, 1.82 * size, 0.54 * size), colour)
    for shift in (-0.2, 0.2):
        board.polygon(_bar(y + shift * size, 1.3 * size, 0.09 * size), _WHITE)


def _bar(y: float, half_width: float, half_height: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle around (0, y)."""
    left = -half_width
    right = half_width
    low = y - half_height
    high = y + half_height
    return [(left, low), (right, low), (right, high), (left, high)]


_PLATES = (_prohibition, _no_entry, _mandatory, _warning, _priority, _direction)


def draw_fence(canvas: Canvas, lot: Lot, street: Street, noise: Noise, rng: np.random.Generator) -> None:
    """Draw wooden boards, a stone wall or a dense railing along a garden; all of it is labeled `fence`."""
    x = lot.side * street.edge
    height = rng.uniform(1.0, 2.0)
    corners = [(x, 0, lot.near), (x, height, lot.near), (x, height, lot.far), (x, 0, lot.far)]
    region = canvas.region(canvas.camera.outline(corners))
    if region is None:
        return
    rows, columns = region.centres()
    right, up, ahead = canvas.camera.rays(rows, columns)
    # Intersect the ray of each pixel with the plane of the fence, (h, w) meters.
    safe = np.where(np.abs(right) < 1e-5, 1e-5, right)
    distance = np.clip((x - canvas.camera.x) / safe, 0.3, 400).astype(np.float32)
    y = canvas.camera.elevation + distance * up
    z = np.broadcast_to(distance * ahead, y.shape)
    depth = np.broadcast_to(distance, y.shape)
    pattern = (_boards, _stones, _railing)[rng.integers(3)]
    colour = pattern(z, y, depth, height, noise, rng)
    canvas.paint(region, colour * canvas.light.on((-lot.side, 0, 0), 0.8), "fence", depth)


def _boards(z: Floats, y: Floats, depth: Floats, height: float, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of a wooden fence without lighting, (h, w, 3); seams fade out with distance."""
    tones = ((148, 104, 66), (112, 84, 62), (86, 104, 84), (196, 190, 176))
    board = np.floor(z / 0.16)
    seam = ((z / 0.16) % 1 < 0.16) * np.exp(-depth / 20)
    rail = np.abs(np.abs(y - height / 2) - height * 0.32) < 0.045
    shade = 0.75 + 0.5 * noise.cells(board, np.zeros_like(board)) + 0.08 * noise.clouds(z * 90, y * 9)
    return linear(tones[rng.integers(len(tones))]) * (shade * (1 - 0.7 * seam) * np.where(rail, 1.18, 1))[..., None]


def _stones(z: Floats, y: Floats, depth: Floats, height: float, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of a stone wall without lighting, (h, w, 3); joints fade out with distance."""
    row = np.floor(y / 0.22)
    place = z / 0.5 + 0.5 * (row % 2)
    joint = (((y / 0.22) % 1 < 0.14) | (place % 1 < 0.07)) * np.exp(-depth / 25)
    shade = 0.8 + 0.4 * noise.cells(np.floor(place), row) + 0.1 * noise.clouds(z * 60, y * 60)
    cap = y > height - 0.12
    tone = linear(np.array([150, 138, 122]) * rng.uniform(0.75, 1.15))
    return tone * (shade * (1 - 0.45 * joint) * np.where(cap, 1.25, 1))[..., None]


def _railing(z: Floats, y: Floats, depth: Floats, height: float, noise: Noise, rng: np.random.Generator) -> Floats:
    """Return the linear RGB of an iron railing with a hedge behind it, without lighting, (h, w, 3)."""
    bar = (z / 0.2) % 1 < 0.42
    rail = (y > height - 0.1) | (np.abs(y - 0.18) < 0.05)
    post = (z / 2.2) % 1 < 0.05
    iron = linear((44, 56, 52)) if rng.random() < 0.6 else linear((206, 206, 200))
    hedge = linear((52, 84, 40)) * (0.75 + 0.3 * noise.clouds(z * 90, y * 90))[..., None]
    return np.where((bar | rail | post)[..., None], iron, hedge)
