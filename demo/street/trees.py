"""Trees: a trunk, and a crown of leaves in clumps."""

from __future__ import annotations

import numpy as np

from demo.street.billboard import Billboard
from demo.street.canvas import Canvas
from demo.street.layout import Spot
from demo.street.light import linear
from demo.street.noise import Noise

__all__ = ["crown_of", "draw_tree"]

_LEAVES = ((86, 122, 48), (64, 104, 52), (110, 132, 58), (70, 92, 44), (150, 120, 48), (168, 96, 48))


def crown_of(spot: Spot) -> tuple[float, float]:
    """Return height of the crown's middle and radius of the crown, in meters.

    Both depend only on the tree's position and kind, so that the shadow fits the drawn tree.
    """
    varied = (abs(spot.x) * 7.31 + spot.z * 3.17) % 1.0
    if spot.kind == "street_tree":
        return 3.9 + 1.1 * varied, 1.25 + 0.6 * varied
    return 4.2 + 3.4 * varied, 2.2 + 1.9 * varied


def draw_tree(canvas: Canvas, spot: Spot, lit: float, noise: Noise, rng: np.random.Generator) -> None:
    """Draw trunk and crown; both are labeled `tree`."""
    middle, radius = crown_of(spot)
    trunk = Billboard(canvas, spot.x, spot.z, "tree", lit)
    bark = linear((92, 74, 58)) * np.float32(rng.uniform(0.6, 1.1))
    foot = 0.09 + 0.05 * radius
    neck = 0.05 + 0.03 * radius
    trunk.polygon([(-foot, 0), (foot, 0), (neck, middle), (-neck, middle)], bark, round_=0.45)
    for lean in (-0.5, 0.4):
        trunk.limb([(0, middle - radius), (lean * radius, middle - 0.1)], neck, bark)
    _draw_crown(canvas, spot, middle, radius, noise, rng)


def _draw_crown(
    canvas: Canvas, spot: Spot, middle: float, radius: float, noise: Noise, rng: np.random.Generator
) -> None:
    """Draw the crown: overlapping balls of leaves, shaded by the sun, with a ragged outline."""
    camera = canvas.camera
    light = canvas.light
    depth = camera.depth(spot.x, spot.z)
    scale = camera.focal / depth
    column, row = camera.project([(spot.x, middle, spot.z)])[0]
    reach = 1.35 * radius * scale
    square = [(column + a * reach, row + b * reach) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    region = canvas.region(square)
    if region is None:
        return
    rows, columns = region.centres()
    right = (columns - column) / scale
    up = (row - rows) / scale
    shift = rng.uniform(0, 400)
    # Noise of two scales makes the outline ragged at the sizes of twigs and of leaves.
    rough = 0.3 * noise.clouds(right * 14 + shift, up * 14) + 0.22 * noise.clouds(right * 55, up * 55 + shift)
    clumps = _clumps(rng, radius)
    field = np.full(np.broadcast_shapes(right.shape, up.shape), -9.0, np.float32)
    shade = np.zeros_like(field)
    sun = light.towards_sun
    # For each pixel, keep the ball that is nearest to the camera: `field` is its height, `shade` its brightness.
    for x, y, size in clumps:
        away = 1 - ((right - x) ** 2 + (up - y) ** 2) / size**2
        nearer = away > field
        glow = 0.5 + 0.5 * ((right - x) * sun[0] + (up - y) * (0.35 + sun[1])) / size
        shade = np.where(nearer, glow, shade)
        field = np.where(nearer, away, field)
    mask = region.mask & (field + rough > 0.12)
    leaves = linear(np.clip(np.array(_LEAVES[rng.choice(6, p=_SHARES)]) + rng.normal(0, 8, 3), 10, 220))
    speckle = np.clip(0.72 + 0.3 * rough + 0.16 * noise.grain(right * 24, up * 24), 0.25, 1.6)
    depth_of_crown = np.clip(0.35 + 0.75 * shade + 0.12 * (up / radius), 0.15, 1.5)
    lit = light.ambient * np.float32(0.85) + light.sun * (0.75 * np.clip(shade, 0, 1) ** 1.5)[..., None]
    colour = leaves * lit * (speckle * depth_of_crown)[..., None]
    canvas.paint(type(region)(region.rows, region.columns, mask), colour, "tree", depth)


_SHARES = (0.3, 0.26, 0.16, 0.16, 0.07, 0.05)


def _clumps(rng: np.random.Generator, radius: float) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) of balls of leaves, in meters from the crown's middle."""
    clumps = [(0.0, 0.0, 0.72 * radius)]
    for _ in range(14):
        angle = rng.uniform(0, 2 * np.pi)
        out = radius * rng.uniform(0.25, 0.75)
        clumps.append((out * np.cos(angle), 0.9 * out * np.sin(angle), radius * rng.uniform(0.28, 0.5)))
    return clumps
