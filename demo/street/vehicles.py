"""Cars: a side view, extruded to the width of the car."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from demo.street.camera import Floats
from demo.street.canvas import Canvas
from demo.street.layout import Spot
from demo.street.light import linear

__all__ = ["CAR_HEIGHT", "CAR_LENGTH", "CAR_WIDTH", "draw_car"]

CAR_LENGTH = 4.3
CAR_WIDTH = 1.76
CAR_HEIGHT = 1.5
_BELT = 0.92  # meters; height at which the windows begin
# Outlines of bodies from the tail over the roof: (share of the length from the tail, meters above the ground).
_BODIES = {
    "hatchback": (
        *((0.0, 0.32), (0.0, 0.92), (0.06, 1.0), (0.15, 1.42)),
        *((0.55, 1.46), (0.74, 0.98), (0.97, 0.8), (1.0, 0.34)),
    ),
    "saloon": (
        *((0.0, 0.32), (0.0, 0.9), (0.14, 0.97), (0.3, 1.38)),
        *((0.58, 1.4), (0.75, 0.95), (0.98, 0.78), (1.0, 0.34)),
    ),
    "estate": ((0.0, 0.32), (0.0, 0.96), (0.07, 1.44), (0.58, 1.48), (0.75, 0.98), (0.98, 0.8), (1.0, 0.34)),
    "van": ((0.0, 0.34), (0.0, 1.0), (0.02, 1.95), (0.7, 2.0), (0.88, 1.1), (0.99, 0.95), (1.0, 0.36)),
}  # fmt: skip
_PAINTS = (
    *((232, 232, 230), (190, 194, 198), (128, 132, 138), (56, 60, 66), (22, 23, 26)),
    *((158, 28, 34), (36, 66, 128), (30, 88, 94), (214, 178, 60), (110, 130, 150), (120, 72, 48)),
)
_GLASS = linear((26, 32, 38))
_RUBBER = linear((22, 22, 24))


@dataclass(frozen=True)
class _Car:
    """Car in its place.

    Attributes:
        canvas: Canvas to draw on.
        x: Offset of the car's middle to the right of the road's middle in meters.
        z: Distance of the end that faces the camera in meters.
        turn: Direction: 1 shows the tail to the camera, -1 the nose.
        profile: Outline of the side: (meters from the tail, meters above the ground).
        paint: Linear RGB of the body.
        lit: Share of the sun that reaches the car.
    """

    canvas: Canvas
    x: float
    z: float
    turn: int
    profile: list[tuple[float, float]]
    paint: Floats
    lit: float

    def half(self, y: float) -> float:
        """Return half the width at height `y` in meters; the roof is narrower than the doors."""
        return CAR_WIDTH / 2 * (1 - 0.2 * max(0.0, min(1.0, (y - _BELT) / 0.6)))

    def at(self, across: float, y: float, along: float) -> tuple[float, float, float]:
        """Return a point of the car in street coordinates; `along` is in meters from the tail."""
        z = along if self.turn > 0 else CAR_LENGTH - along
        return (self.x + across, y, self.z + z)

    def face(self, points: list[tuple[float, float, float]], colour: Floats, normal: tuple[float, ...]) -> None:
        """Paint a flat part; points and normal are in the car's own coordinates."""
        turned = (normal[0], normal[1], normal[2] * self.turn)
        self.canvas.face([self.at(*p) for p in points], colour * self.canvas.light.on(turned, self.lit), "car")


def draw_car(canvas: Canvas, spot: Spot, lit: float, rng: np.random.Generator) -> None:
    """Draw the parts of a car that the camera sees."""
    body = _BODIES[str(rng.choice(list(_BODIES), p=[0.4, 0.26, 0.22, 0.12]))]
    paint = linear(np.clip(np.array(_PAINTS[rng.integers(len(_PAINTS))]) + rng.normal(0, 6, 3), 8, 245))
    profile = [(share * CAR_LENGTH, y) for share, y in body]
    car = _Car(canvas, spot.x, spot.z, spot.turn or 1, profile, paint, lit)
    _draw_underside(car)
    side = 1 if canvas.camera.x > spot.x else -1
    _draw_shell(car)
    _draw_side(car, side)
    _draw_end(car, rng)


def _draw_underside(car: _Car) -> None:
    """Draw the dark strip between body and ground at both ends and both sides."""
    half = CAR_WIDTH / 2 * 0.94
    for along in (0.1, CAR_LENGTH - 0.1):
        car.face(
            [(-half, 0.05, along), (half, 0.05, along), (half, 0.4, along), (-half, 0.4, along)], _RUBBER, (0, 0, 0)
        )
    for side in (-1, 1):
        x = side * half
        car.face(
            [(x, 0.1, 0.3), (x, 0.1, CAR_LENGTH - 0.3), (x, 0.4, CAR_LENGTH - 0.3), (x, 0.4, 0.3)],
            _RUBBER,
            (side, 0, 0),
        )


def _draw_shell(car: _Car) -> None:
    """Draw a panel across the car for every edge of its outline that faces the camera."""
    edges = list(zip(car.profile, car.profile[1:], strict=False))
    # Far panels first, so that near ones cover them.
    order = sorted(edges, key=lambda edge: -_depth(car, (edge[0][0] + edge[1][0]) / 2))
    for (near, low), (far, high) in order:
        length = math.hypot(far - near, high - low)
        normal = (0.0, (far - near) / length, (low - high) / length)
        if not _faces_camera(car, normal, near, low):
            continue
        corners = [(-car.half(low), low, near), (car.half(low), low, near)]
        corners += [(car.half(high), high, far), (-car.half(high), high, far)]
        car.face(corners, car.paint, normal)
        steep = abs(high - low) > 0.25 and min(low, high) > _BELT - 0.02
        if steep:
            car.face(_inset(corners, 0.86), _pane(car), normal)


def _pane(car: _Car) -> Floats:
    """Return the linear RGB of a window, which reflects some of the skyline."""
    return _GLASS + car.canvas.light.skyline * np.float32(0.28)


def _draw_side(car: _Car, side: int) -> None:
    """Draw the side that the camera sees (-1 left, 1 right): body, sill, windows, pillars and wheels."""
    normal = (float(side), 0.15, 0.0)
    outline = [(side * car.half(y), y, along) for along, y in car.profile]
    car.face(outline, car.paint * np.float32(0.92), normal)
    door = [
        (side * CAR_WIDTH / 2, y, along)
        for along, y in ((0.1, 0.55), (CAR_LENGTH - 0.1, 0.5), (CAR_LENGTH - 0.1, 0.34), (0.1, 0.34))
    ]
    car.face(door, car.paint * np.float32(0.6), normal)
    cabin = [(along, y) for along, y in car.profile if y > _BELT + 0.02]
    windows = _inset([(side * car.half(y), y, along) for along, y in cabin], 0.87) if len(cabin) > 2 else []
    if windows:
        low = [(x, max(y, _BELT + 0.04), along) for x, y, along in windows]
        car.face(low, _pane(car), normal)
        for along in (0.36 * CAR_LENGTH, 0.56 * CAR_LENGTH):
            x0 = side * car.half(_BELT)
            x1 = side * car.half(1.36)
            pillar = [(x0, _BELT, along), (x0, _BELT, along + 0.09), (x1, 1.36, along + 0.05), (x1, 1.36, along - 0.02)]
            car.face(pillar, car.paint * np.float32(0.8), normal)
    for along in (0.19 * CAR_LENGTH, 0.81 * CAR_LENGTH):
        _draw_wheel(car, side, along)


def _draw_wheel(car: _Car, side: int, along: float) -> None:
    """Draw tire and rim; `along` is in meters from the tail."""
    x = side * (CAR_WIDTH / 2 + 0.01)
    angles = np.linspace(0, 2 * math.pi, 18, endpoint=False)
    for radius, colour in ((0.39, _RUBBER * np.float32(0.6)), (0.33, _RUBBER), (0.2, linear((150, 152, 156)))):
        rim = [(x, 0.33 + radius * math.sin(a), along + radius * math.cos(a)) for a in angles]
        car.face([(px, max(0.0, py), pz) for px, py, pz in rim], colour, (side, 0.2, 0))


def _draw_end(car: _Car, rng: np.random.Generator) -> None:
    """Draw lights, plate and bumper of the end that faces the camera."""
    tail = car.turn > 0
    along = -0.01 if tail else CAR_LENGTH + 0.01
    normal = (0.0, 0.1, -1.0) if tail else (0.0, 0.1, 1.0)
    top = 0.88 if tail else 0.72
    lamp = linear((196, 24, 28)) * np.float32(1.3) if tail else linear((246, 244, 230))
    if car.canvas.light.lamps > 0.1 or rng.random() < 0.3:
        lamp = lamp * np.float32(2.4)
    for side in (-1, 1):
        inner = side * 0.5
        outer = side * 0.84
        car.face(
            [(inner, top - 0.16, along), (outer, top - 0.2, along), (outer, top, along), (inner, top, along)],
            lamp,
            normal,
        )
    car.face(
        [(-0.86, 0.3, along), (0.86, 0.3, along), (0.86, 0.46, along), (-0.86, 0.46, along)],
        linear((44, 45, 48)),
        normal,
    )
    car.face(
        [(-0.27, 0.48, along), (0.27, 0.48, along), (0.27, 0.6, along), (-0.27, 0.6, along)],
        linear((228, 226, 206)),
        normal,
    )


def _faces_camera(car: _Car, normal: tuple[float, ...], along: float, y: float) -> bool:
    """Return whether a panel with this normal faces the camera; the normal's x component is taken as 0."""
    camera = car.canvas.camera
    x, _, z = car.at(0.0, y, along)
    towards = (camera.x - x, camera.elevation - y, -z)
    return normal[1] * towards[1] + normal[2] * car.turn * towards[2] > 0


def _depth(car: _Car, along: float) -> float:
    """Return the distance along the street of a point of the car, in meters."""
    return car.at(0.0, 0.0, along)[2]


def _inset(points: list[tuple[float, float, float]], share: float) -> list[tuple[float, float, float]]:
    """Return the polygon, shrunk towards its center to `share` of its size."""
    corners = np.asarray(points)
    middle = corners.mean(axis=0)
    return [tuple(row) for row in (middle + share * (corners - middle)).tolist()]
