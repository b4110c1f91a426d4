"""Pedestrians and cyclists."""

from __future__ import annotations

import math

import numpy as np

from demo.street.billboard import Billboard
from demo.street.camera import Floats
from demo.street.canvas import Canvas
from demo.street.layout import Spot
from demo.street.light import linear

__all__ = ["draw_cyclist", "draw_person"]

_SKIN = ((236, 196, 168), (206, 156, 120), (158, 108, 78), (104, 70, 52))
_HAIR = ((40, 30, 26), (84, 56, 36), (150, 110, 62), (122, 120, 118), (20, 18, 20))
_TOPS = ((180, 40, 48), (36, 66, 130), (226, 222, 212), (40, 42, 48), (70, 110, 74), (222, 160, 50), (120, 70, 120))
_LEGS = ((40, 48, 74), (28, 28, 32), (92, 82, 70), (120, 118, 116), (62, 74, 102))
_METAL = linear((52, 54, 60))
_TYRE = linear((26, 26, 28))


def _one(rng: np.random.Generator, colours: tuple[tuple[int, int, int], ...]) -> Floats:
    """Return one of the colors as linear RGB, slightly varied."""
    colour = np.array(colours[rng.integers(len(colours))])
    return linear(np.clip(colour + rng.normal(0, 8, 3), 8, 250))


def draw_person(canvas: Canvas, spot: Spot, ground: float, lit: float, rng: np.random.Generator) -> None:
    """Draw a person who walks or stands; with a `turn` of 0 the person is seen from the side."""
    board = Billboard(canvas, spot.x, spot.z, "person", lit, ground)
    size = rng.uniform(1.52, 1.88) / 1.75 * (0.68 if rng.random() < 0.12 else 1.0)
    stride = rng.uniform(0.08, 0.3) * (1.0 if spot.turn == 0 else 0.3)
    facing = float(rng.choice([-1.0, 1.0]))
    skin, hair, top, legs = (_one(rng, colours) for colours in (_SKIN, _HAIR, _TOPS, _LEGS))
    shoulder = (0.15 if spot.turn == 0 else 0.21) * size
    hip = 0.86 * size
    long_coat = rng.random() < 0.3
    # Far leg first, in a darker shade; then the near one.
    for side, shade in ((1, 0.75), (-1, 1.0)):
        foot = side * (stride + (0 if spot.turn == 0 else 0.07))
        knee = (foot * 0.55 + 0.05 * facing * (spot.turn == 0), 0.47 * size)
        board.limb([(side * 0.06, hip), knee, (foot, 0.06)], 0.14 * size, legs * np.float32(shade))
        board.ellipse((foot + 0.05 * facing, 0.045), (0.11, 0.045), _TYRE)
    _arm(board, 1, shoulder, size, stride, top * np.float32(0.7), skin)
    bottom = (0.55 if long_coat else 0.8) * size
    flare = 1.15 if long_coat else 0.85
    torso = [(-shoulder * flare, bottom), (-shoulder, 1.3 * size), (-shoulder * 0.7, 1.45 * size)]
    torso += [(-x, y) for x, y in reversed(torso)]
    board.polygon(torso, top, round_=0.3)
    _arm(board, -1, shoulder, size, stride, top * np.float32(0.92), skin)
    _extras(board, shoulder, size, facing, rng)
    _head(board, (0.03 * facing * (spot.turn == 0), 1.59 * size), size, facing, spot.turn, skin, hair)


def _arm(board: Billboard, side: int, shoulder: float, size: float, swing: float, sleeve: Floats, skin: Floats) -> None:
    """Draw an arm on one side (-1 or 1), bent by `swing` meters, with the hand at its end."""
    start = (side * shoulder * 0.92, 1.38 * size)
    elbow = (side * (shoulder + 0.03) - side * swing * 0.3, 1.12 * size)
    hand = (side * (shoulder + 0.02) - side * swing * 0.9, 0.86 * size)
    board.limb([start, elbow, hand], 0.1 * size, sleeve)
    board.ellipse(hand, (0.045 * size, 0.055 * size), skin)


def _extras(board: Billboard, shoulder: float, size: float, facing: float, rng: np.random.Generator) -> None:
    """Draw a backpack (22 %), a bag (18 %), or nothing."""
    choice = rng.random()
    colour = _one(rng, _TOPS)
    if choice < 0.22:
        board.ellipse((-facing * shoulder, 1.18 * size), (0.13 * size, 0.21 * size), colour, round_=0.2)
    elif choice < 0.4:
        x = facing * (shoulder + 0.08)
        board.polygon([(x - 0.12, 0.52), (x + 0.12, 0.52), (x + 0.1, 0.8), (x - 0.1, 0.8)], colour)


def _head(
    board: Billboard, centre: tuple[float, float], size: float, facing: float, turn: int, skin: Floats, hair: Floats
) -> None:
    """Draw neck, head and hair as seen from behind (`turn` 1), from the side (0) or from the front (-1)."""
    x, y = centre
    board.limb([(x * 0.6, 1.42 * size), (x, y)], 0.09 * size, skin * np.float32(0.85))
    board.ellipse((x, y), (0.095 * size, 0.125 * size), skin, round_=0.2)
    if turn > 0:
        board.ellipse((x, y + 0.01), (0.102 * size, 0.13 * size), hair, round_=0.2)
    else:
        angles = np.linspace(-0.1, math.pi + 0.1, 12)
        cap = [(x + 0.105 * size * math.cos(a), y + 0.02 + 0.125 * size * math.sin(a)) for a in angles]
        board.polygon(cap, hair)
        if turn == 0:
            board.ellipse((x - 0.05 * facing * size, y + 0.02), (0.065 * size, 0.1 * size), hair)


def draw_cyclist(canvas: Canvas, spot: Spot, lit: float, rng: np.random.Generator) -> None:
    """Draw a bicycle and its rider from the side (`turn` 0), from behind (1) or from the front (-1)."""
    board = Billboard(canvas, spot.x, spot.z, "cyclist", lit)
    if spot.turn == 0:
        _from_the_side(board, float(rng.choice([-1.0, 1.0])), rng)
    else:
        _from_the_end(board, spot.turn, rng)


def _from_the_side(board: Billboard, facing: float, rng: np.random.Generator) -> None:
    """Draw bicycle and rider in profile; `facing` is 1 if they ride to the right, -1 to the left."""
    frame, skin, top, legs = (_one(rng, colours) for colours in (_TOPS, _SKIN, _TOPS, _LEGS))

    def at(x: float, y: float) -> tuple[float, float]:
        return (facing * x, y)

    for hub in (-0.52, 0.52):
        board.ring(at(hub, 0.35), (0.35, 0.35), 0.05, _TYRE)
        board.ellipse(at(hub, 0.35), (0.05, 0.05), _METAL)
    crank = at(-0.05, 0.32)
    saddle = at(-0.2, 0.92)
    bar = at(0.4, 1.0)
    board.limb([crank, at(0.34, 0.74), at(0.52, 0.35)], 0.05, frame)
    board.limb([at(-0.52, 0.35), crank, saddle, at(-0.52, 0.35)], 0.045, frame)
    board.limb([at(-0.15, 0.74), at(0.36, 0.78), bar], 0.045, frame)
    pedal = rng.uniform(-0.14, 0.14)
    for lift, shade in ((-pedal, 0.7), (pedal, 1.0)):
        board.limb([saddle, at(0.18, 0.78 + lift / 2), at(-0.02, 0.3 + lift)], 0.13, legs * np.float32(shade))
        board.ellipse(at(0.03, 0.26 + lift), (0.11, 0.05), _TYRE)
    neck = at(0.16, 1.42)
    board.polygon([at(-0.34, 0.9), at(-0.05, 0.88), at(0.28, 1.34), at(0.08, 1.5)], top, round_=0.25)
    board.limb([at(0.16, 1.36), at(0.32, 1.1), bar], 0.09, top * np.float32(0.85))
    board.ellipse(at(0.4, 1.02), (0.05, 0.05), skin)
    board.limb([neck, at(0.22, 1.52)], 0.09, skin)
    board.ellipse(at(0.24, 1.6), (0.1, 0.125), skin, round_=0.2)
    _helmet(board, facing * 0.22, 1.66, rng)


def _from_the_end(board: Billboard, turn: int, rng: np.random.Generator) -> None:
    """Draw bicycle and rider from behind (`turn` 1, with a rear light) or from the front (-1)."""
    skin, top, legs = (_one(rng, colours) for colours in (_SKIN, _TOPS, _LEGS))
    board.ellipse((0, 0.35), (0.045, 0.35), _TYRE)
    board.limb([(0, 0.4), (0, 0.9)], 0.05, _METAL)
    lift = rng.uniform(-0.15, 0.15)
    for side in (-1, 1):
        foot = (side * 0.13, 0.28 + side * lift)
        board.limb([(side * 0.1, 0.92), (side * 0.17, 0.62 + side * lift / 2), foot], 0.14, legs)
        board.ellipse(foot, (0.06, 0.07), _TYRE)
    board.limb([(-0.3, 1.02), (0.3, 1.02)], 0.04, _METAL)
    board.polygon(
        [(-0.17, 0.86), (0.17, 0.86), (0.21, 1.34), (0.12, 1.48), (-0.12, 1.48), (-0.21, 1.34)], top, round_=0.3
    )
    for side in (-1, 1):
        board.limb([(side * 0.2, 1.36), (side * 0.29, 1.16), (side * 0.27, 1.02)], 0.09, top * np.float32(0.85))
    board.ellipse((0, 1.59), (0.095, 0.12), skin if turn < 0 else _HAIR_BACK, round_=0.2)
    _helmet(board, 0.0, 1.65, rng)
    if turn > 0:
        board.ellipse((0, 0.82), (0.03, 0.03), linear((235, 40, 36)) * np.float32(1.6))


_HAIR_BACK = linear((60, 44, 34))


def _helmet(board: Billboard, x: float, y: float, rng: np.random.Generator) -> None:
    """Draw a helmet in 70 % of the cases."""
    if rng.random() < 0.7:
        angles = np.linspace(0, math.pi, 12)
        shell = [(x + 0.13 * math.cos(a), y - 0.02 + 0.11 * math.sin(a)) for a in angles]
        board.polygon(shell, _one(rng, _TOPS), round_=0.3)
