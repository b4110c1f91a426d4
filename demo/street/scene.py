"""Drawn street scenes: an image and its exact label from one seed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.street.buildings import DEPTH, draw_house
from demo.street.camera import NEAR, Camera
from demo.street.canvas import Canvas
from demo.street.figures import draw_cyclist, draw_person
from demo.street.finish import develop
from demo.street.furniture import draw_bollard, draw_fence, draw_lamp, draw_mast, draw_sign
from demo.street.ground import draw_ground
from demo.street.layout import Lot, Spot, Street, plan_street
from demo.street.light import choose_light
from demo.street.noise import Noise
from demo.street.shadows import Shadows
from demo.street.sky import draw_sky
from demo.street.trees import crown_of, draw_tree
from demo.street.vehicles import CAR_HEIGHT, CAR_LENGTH, CAR_WIDTH, draw_car
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import encode_mask

__all__ = ["HEIGHT", "VOID", "VOID_BORDER", "WIDTH", "draw_scene", "encode_scene"]

WIDTH = 320
HEIGHT = 240
VOID = 255
VOID_BORDER = 4
# Each pixel is drawn as 3x3 pixels. Their mean is its color, and the middle one is its label.
_FINE = 3
_SHADOWS_END = 55.0  # meters; shadows beyond are thinner than a pixel


def draw_scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene; equal seeds give equal scenes.

    Args:
        seed: Number that decides street, traffic, weather and camera.

    Returns:
        Image (240, 320, 3) uint8 RGB, and label (240, 320) uint8: class ids, 255 in a border of 4 pixels.
    """
    rng = np.random.default_rng((0xD11A7E, seed))
    street = plan_street(rng)
    light = choose_light(rng)
    canvas = Canvas(_place_camera(rng, street, WIDTH * _FINE, HEIGHT * _FINE), light)
    noise = Noise(rng)
    shadows = _cast_shadows(street, light.towards_sun)
    draw_sky(canvas, noise)
    draw_ground(canvas, street, shadows, noise, rng)
    _draw_things(canvas, street, shadows, noise, int(rng.integers(2**31)))
    return develop(_mean_of_cells(canvas.colour), rng), _middle_of_cells(canvas.label)


def encode_scene(seed: int) -> tuple[bytes, bytes]:
    """Draw a scene and return it as a JPEG file, and its label as a palette PNG whose values are class ids."""
    image, label = draw_scene(seed)
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=88)
    # Use a full palette: with fewer colors a PNG may not hold the void value 255.
    palette = (*label_space("street_scenes").palette, *[(0, 0, 0)] * 245)
    return sink.getvalue(), encode_mask(label, palette)


def _place_camera(rng: np.random.Generator, street: Street, width: int, height: int) -> Camera:
    """Return a camera with random focal length, horizon, height, position across the road, and yaw."""
    return Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(0.72, 1.0),
        horizon=height * rng.uniform(0.5, 0.61),
        elevation=rng.uniform(1.3, 1.9),
        x=street.road * rng.uniform(-0.15, 0.8),
        yaw=math.radians(rng.normal(0, 6)),
    )


def _cast_shadows(street: Street, towards_sun: tuple[float, float, float]) -> Shadows:
    """Return the bodies that cast shadows: houses and objects up to 55 m."""
    shadows = Shadows(towards_sun)
    for lot in street.lots:
        sides = sorted((lot.side * street.edge, lot.side * (street.edge + DEPTH)))
        if lot.kind == "house" and lot.near < _SHADOWS_END:
            shadows.add_box((sides[0], 0, lot.near), (sides[1], lot.height, lot.far))
    for spot in street.spots:
        if spot.z < _SHADOWS_END:
            _cast_shadow(shadows, spot)
    return shadows


def _cast_shadow(shadows: Shadows, spot: Spot) -> None:
    """Add the shape of one object: a ball and a trunk for a tree, two boxes for a car, one box for anything else."""
    x = spot.x
    z = spot.z
    if spot.kind in ("tree", "street_tree"):
        middle, radius = crown_of(spot)
        shadows.add_ball((x, middle, z), radius * 0.9)
        shadows.add_box((x - 0.15, 0, z - 0.15), (x + 0.15, middle, z + 0.15))
    elif spot.kind == "car":
        half = CAR_WIDTH / 2
        shadows.add_box((x - half, 0.0, z), (x + half, 0.75, z + CAR_LENGTH))
        shadows.add_box((x - half * 0.85, 0.7, z + 0.9), (x + half * 0.85, CAR_HEIGHT, z + CAR_LENGTH - 1.2))
    else:
        half, top = {"person": (0.22, 1.7), "cyclist": (0.24, 1.7), "bollard": (0.08, 1.0)}.get(spot.kind, (0.08, 6.0))
        shadows.add_box((x - half, 0, z - half), (x + half, top, z + half))


def _draw_things(canvas: Canvas, street: Street, shadows: Shadows, noise: Noise, seed: int) -> None:
    """Draw lots and objects from far to near, so that near ones cover far ones."""
    things: list[tuple[float, Lot | Spot]] = [((lot.near + lot.far) / 2, lot) for lot in street.lots]
    things += [(spot.z + (CAR_LENGTH / 2 if spot.kind == "car" else 0), spot) for spot in street.spots]
    # Objects in a lot lie behind its fence, and objects in the street lie in front of the houses.
    things.sort(key=lambda thing: _order(thing[0], thing[1], street), reverse=True)
    for number, (_, thing) in enumerate(things):
        # Each thing has its own generator, so that one thing's random numbers do not depend on another's.
        rng = np.random.default_rng((seed, number))
        if isinstance(thing, Spot):
            _draw_spot(canvas, thing, street, shadows, noise, rng)
        elif thing.kind == "house":
            draw_house(canvas, thing, street, shadows, noise, rng)
        else:
            draw_fence(canvas, thing, street, noise, rng)


def _order(z: float, thing: Lot | Spot, street: Street) -> tuple[int, float]:
    """Return the sort key of a thing, larger if it is further back: layer (far trees, lots, street), then distance."""
    if isinstance(thing, Spot):
        return (2 if thing.kind == "tree" and z > 100 else 1 if abs(thing.x) > street.edge else 0, z)
    return (1, z if thing.kind == "house" else thing.near - 0.01)


def _draw_spot(
    canvas: Canvas, spot: Spot, street: Street, shadows: Shadows, noise: Noise, rng: np.random.Generator
) -> None:
    """Draw one object; skip it if it is too near to the camera."""
    if canvas.camera.depth(spot.x, spot.z) < 2 * NEAR:
        return
    lit = float(shadows.lit(spot.x - 0.6 * np.sign(spot.x), 1.2, spot.z - 1.2))
    draw: dict[str, Callable[[], None]] = {
        "tree": lambda: draw_tree(canvas, spot, lit, noise, rng),
        "street_tree": lambda: draw_tree(canvas, spot, lit, noise, rng),
        "lamp": lambda: draw_lamp(canvas, spot, lit, rng),
        "mast": lambda: draw_mast(canvas, spot, lit, rng),
        "bollard": lambda: draw_bollard(canvas, spot, lit),
        "sign": lambda: draw_sign(canvas, spot, lit, rng),
        "car": lambda: draw_car(canvas, spot, lit, rng),
        "person": lambda: draw_person(canvas, spot, 0.0, lit, rng),
        "cyclist": lambda: draw_cyclist(canvas, spot, lit, rng),
    }
    draw[spot.kind]()


def _mean_of_cells(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average cells of 3x3 pixels, (3H, 3W, 3) to (H, W, 3)."""
    height = fine.shape[0] // _FINE
    width = fine.shape[1] // _FINE
    return fine.reshape(height, _FINE, width, _FINE, 3).mean(axis=(1, 3))


def _middle_of_cells(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the middle pixel of each 3x3 cell, (3H, 3W) to (H, W), and set the border to void."""
    label = fine[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE].copy()
    label[:VOID_BORDER] = label[-VOID_BORDER:] = VOID
    label[:, :VOID_BORDER] = label[:, -VOID_BORDER:] = VOID
    return label
