"""Painters of single things on the street. Each stands at (x, z) metres and is as large as in life."""

from __future__ import annotations

import math

import numpy as np

from demo.camera import Camera
from demo.canvas import Canvas, Colour
from pipeline.data.label_spaces import label_space

__all__ = ["CLASS", "building", "car", "cyclist", "fence", "lamp", "person", "sign", "tint", "tree"]

CLASS = {name: class_id for class_id, name in enumerate(label_space("street_scenes").classes)}


def tint(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """A colour near `colour`, lighter or darker and a little off in hue."""
    change = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    red, green, blue = (int(np.clip(value + delta, 0, 255)) for value, delta in zip(colour, change, strict=True))
    return red, green, blue


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = (int(value * share) for value in colour)
    return red, green, blue


def building(canvas: Canvas, camera: Camera, x: float, near: float, far: float, top: float) -> None:
    """A facade along the street, with the end wall that can be seen, floors of windows, and a roof line."""
    rng = canvas.rng
    facades = ((176, 92, 74), (196, 178, 148), (150, 146, 142), (208, 196, 176), (122, 104, 96), (186, 134, 96))
    colour = tint(rng, facades[rng.integers(len(facades))], 14)
    out = math.copysign(9.0, x)
    canvas.polygon(camera.front(x, x + out, 0, top, near), _darker(colour, 0.72), CLASS["building"])
    canvas.polygon(camera.wall(x, 0, top, near, far), colour, CLASS["building"])
    canvas.polygon(camera.wall(x, top - 0.5, top, near, far), _darker(colour, 0.8), CLASS["building"])
    glass = tint(rng, (70, 84, 104), 16)
    lit = rng.random() < 0.25
    for floor in np.arange(0.9, top - 2.2, 3.0):
        for start in np.arange(near + 0.8, far - 1.6, 2.6):
            pane = (236, 206, 120) if lit and rng.random() < 0.3 else tint(rng, glass, 10)
            canvas.polygon(camera.wall(x, floor, floor + 1.7, start, start + 1.3), pane, CLASS["building"])


def tree(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """A trunk and a crown of overlapping leaf clusters, lit from above."""
    rng, scale = canvas.rng, camera.scale(z)
    height, crown = rng.uniform(4.5, 8.0), rng.uniform(1.3, 2.3)
    foot, fork = camera.point(x, 0, z), camera.point(x, height - crown, z)
    canvas.line(foot, fork, 0.28 * scale, tint(rng, (84, 66, 50), 8), CLASS["tree"])
    seasons = ((62, 112, 46), (84, 126, 44), (44, 92, 52), (170, 120, 44))
    leaf = tint(rng, seasons[rng.integers(len(seasons))], 10)
    for cluster in sorted(rng.normal(0, 0.5, (40, 2)).clip(-0.9, 0.9), key=lambda offset: offset[1]):
        centre = camera.point(x + crown * cluster[0], height - crown * 0.6 + crown * cluster[1], z)
        radius = scale * crown * rng.uniform(0.28, 0.5)
        light = int(16 * cluster[1])
        shade = tint(rng, (leaf[0] + light, leaf[1] + light, leaf[2] + light // 2), 8)
        canvas.ellipse(centre, (radius, radius * 0.85), shade, CLASS["tree"])


def lamp(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """A street lamp that leans its arm over the road."""
    rng, scale = canvas.rng, camera.scale(z)
    colour, height = tint(rng, (92, 96, 100), 18), rng.uniform(5.0, 7.0)
    top = camera.point(x, height, z)
    canvas.line(camera.point(x, 0, z), top, 0.16 * scale, colour, CLASS["pole"])
    arm = camera.point(x - math.copysign(1.3, x), height + 0.1, z)
    canvas.line(top, arm, 0.11 * scale, colour, CLASS["pole"])
    canvas.ellipse(arm, (0.35 * scale, 0.14 * scale), (226, 222, 196), CLASS["pole"])


def sign(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """A traffic sign on its post: round, triangular or rectangular."""
    rng, scale = canvas.rng, camera.scale(z)
    height, size = rng.uniform(2.1, 2.7), rng.uniform(0.35, 0.5)
    canvas.line(camera.point(x, 0, z), camera.point(x, height, z), 0.09 * scale, (140, 142, 144), CLASS["pole"])
    centre, kind = camera.point(x, height + size * 0.6, z), rng.integers(3)
    red, inner = (196, 32, 36), (238, 236, 230)
    if kind == 0:
        canvas.ellipse(centre, (size * scale, size * scale), red, CLASS["sign"])
        canvas.ellipse(centre, (size * scale * 0.65, size * scale * 0.65), inner, CLASS["sign"])
    elif kind == 1:
        for share, colour in ((1.0, red), (0.6, inner)):
            reach = size * scale * share * 1.15
            across, down = 0.87 * reach, 0.5 * reach
            corners = [(0.0, -reach), (across, down), (-across, down)]
            canvas.polygon([(centre[0] + dx, centre[1] + dy) for dx, dy in corners], colour, CLASS["sign"])
    else:
        blue = tint(rng, (34, 78, 160), 12)
        bottom, top = height, height + 1.3 * size
        canvas.polygon(camera.front(x - 1.2 * size, x + 1.2 * size, bottom, top, z), blue, CLASS["sign"])


def fence(canvas: Canvas, camera: Camera, x: float, near: float, far: float) -> None:
    """Railings along the kerb: rails and bars over a tinted panel."""
    rng = canvas.rng
    colour = tint(rng, (104, 112, 122), 22)
    canvas.polygon(camera.wall(x, 0.05, 1.05, near, far), tint(rng, (142, 144, 142), 12), CLASS["fence"])
    for z in np.arange(near, far, 0.45):
        start, end = camera.point(x, 0, z), camera.point(x, 1.1, z)
        canvas.line(start, end, 0.05 * camera.scale(z), colour, CLASS["fence"])
    for height in (0.15, 1.05):
        canvas.polygon(camera.wall(x, height, height + 0.09, near, far), colour, CLASS["fence"])


def car(canvas: Canvas, camera: Camera, x: float, z: float, towards: bool) -> None:
    """A car from behind or from the front, with its visible side, cabin, wheels and shadow."""
    rng, class_id = canvas.rng, CLASS["car"]
    paints = ((172, 34, 38), (42, 66, 128), (214, 214, 210), (44, 46, 50), (150, 154, 158), (64, 104, 78))
    paint = tint(rng, paints[rng.integers(len(paints))], 12)
    half, tall, length = rng.uniform(0.82, 0.95), rng.uniform(1.35, 1.7), 3.8
    back = z + length
    canvas.shade(camera.ground(x - half - 0.2, x + half + 0.2, z - 0.3, back), 0.75)
    side = x - half if x > 0 else x + half
    canvas.polygon(camera.wall(side, 0.3, 0.95, z, back), _darker(paint, 0.75), class_id)
    canvas.polygon(camera.wall(side, 0.9, tall, z + 0.3, back - 0.7), _darker(paint, 0.5), class_id)
    scale = camera.scale(z)
    for dz in (0.8, length - 0.8):
        hub, size = camera.point(side, 0.32, z + dz), 0.33 * camera.scale(z + dz)
        canvas.ellipse(hub, (size * 0.55, size), (24, 24, 26), class_id)
    for wheel in (-0.68, 0.68):
        canvas.ellipse(camera.point(x + wheel, 0.26, z), (0.14 * scale, 0.27 * scale), (22, 22, 24), class_id)
    cabin = [(x - half * 0.94, 0.9), (x - half * 0.72, tall), (x + half * 0.72, tall), (x + half * 0.94, 0.9)]
    canvas.polygon([camera.point(px, py, z + 0.3) for px, py in cabin], _darker(paint, 0.85), class_id)
    pane = [
        (x - half * 0.78, 0.95),
        (x - half * 0.62, tall - 0.1),
        (x + half * 0.62, tall - 0.1),
        (x + half * 0.78, 0.95),
    ]
    canvas.polygon([camera.point(px, py, z + 0.28) for px, py in pane], tint(rng, (58, 70, 84), 10), class_id)
    canvas.polygon(camera.front(x - half, x + half, 0.3, 0.95, z), paint, class_id)
    light = (246, 238, 206) if towards else (206, 30, 34)
    for lamp_x in (-0.7, 0.7):
        canvas.ellipse(camera.point(x + lamp_x * half / 0.9, 0.75, z), (0.13 * scale, 0.08 * scale), light, class_id)
    canvas.polygon(camera.front(x - 0.24, x + 0.24, 0.45, 0.57, z), (232, 230, 214), class_id)


def person(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """Somebody walking: legs, coat, arms, head."""
    _figure(canvas, camera, x, z, 0.0, canvas.rng.uniform(1.5, 1.85), CLASS["person"])


def cyclist(canvas: Canvas, camera: Camera, x: float, z: float) -> None:
    """A rider on two wheels, seen from the side at an angle."""
    rng, scale, class_id = canvas.rng, camera.scale(z), CLASS["cyclist"]
    frame = tint(rng, (60, 60, 66), 20)
    for wheel in (-0.5, 0.5):
        hub = camera.point(x + wheel, 0.34, z)
        canvas.ellipse(hub, (0.3 * scale, 0.34 * scale), (30, 30, 34), class_id)
        canvas.ellipse(hub, (0.19 * scale, 0.24 * scale), (112, 110, 110), class_id)
    for start, end in (((-0.5, 0.34), (0.05, 0.9)), ((0.5, 0.34), (0.35, 1.05)), ((0.0, 0.4), (0.35, 0.95))):
        ends = [camera.point(x + dx, height, z) for dx, height in (start, end)]
        canvas.line(ends[0], ends[1], 0.08 * scale, frame, class_id)
    _figure(canvas, camera, x, z, 0.55, 1.25, class_id)


def _figure(canvas: Canvas, camera: Camera, x: float, z: float, lift: float, tall: float, class_id: int) -> None:
    rng, scale = canvas.rng, camera.scale(z)
    coats = ((148, 36, 46), (36, 54, 106), (62, 66, 70), (196, 160, 52), (226, 222, 214), (50, 104, 92))
    coat, legs = tint(rng, coats[rng.integers(len(coats))], 14), tint(rng, (48, 50, 62), 14)
    stride = rng.uniform(0.06, 0.2)
    hip, shoulder = lift + 0.46 * tall, lift + 0.82 * tall
    for side in (-1, 1):
        canvas.line(camera.point(x + side * stride, lift, z), camera.point(x, hip, z), 0.15 * scale, legs, class_id)
        canvas.line(
            camera.point(x + side * 0.27, hip + 0.05, z),
            camera.point(x + side * 0.18, shoulder, z),
            *(0.11 * scale, _darker(coat, 0.85), class_id),
        )
    body = [(x - 0.19, hip - 0.1), (x - 0.22, shoulder), (x + 0.22, shoulder), (x + 0.19, hip - 0.1)]
    canvas.polygon([camera.point(px, py, z) for px, py in body], coat, class_id)
    skin = tint(rng, (206, 160, 128), 24)
    canvas.ellipse(camera.point(x, lift + 0.92 * tall, z), (0.1 * scale, 0.125 * scale), skin, class_id)
