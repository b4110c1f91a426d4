"""Street scenes drawn from one seed: an image and its exact label, for the demo and the tests.

Eleven classes of the `street_scenes` label space. Perspective, time of day, weather, textures, shadows, occlusion,
blur, colour casts and sensor noise vary, so that a network has something to learn and something to get wrong.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo import street_objects as paint
from demo.camera import Camera
from demo.canvas import Canvas, Colour, smooth_noise
from demo.street_objects import CLASS, tint
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import encode_mask

__all__ = ["HEIGHT", "VOID", "VOID_BORDER", "WIDTH", "draw_scene", "encode_scene"]

WIDTH, HEIGHT = 320, 240
VOID, VOID_BORDER = 255, 4
_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((96, 150, 214), (196, 220, 238)),
    ((150, 160, 172), (206, 208, 208)),
    ((70, 92, 150), (244, 190, 140)),
    ((112, 128, 150), (220, 216, 196)),
    ((40, 52, 92), (168, 126, 134)),
)


@dataclass(frozen=True)
class _Street:
    """Widths in metres: half the road, a pavement, and where facades stand."""

    road: float
    pavement: float
    facade: float


def draw_scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws one scene.

    Args:
        seed: decides everything.

    Returns:
        Image (240, 320, 3) uint8 RGB, and label (240, 320) uint8: class ids, 255 in a border of 4 pixels.
    """
    rng = np.random.default_rng((0xD11A7E, seed))
    canvas = Canvas(WIDTH, HEIGHT, rng)
    camera = Camera(
        focal=WIDTH * rng.uniform(0.7, 0.95),
        centre=WIDTH * rng.uniform(0.38, 0.62),
        horizon=HEIGHT * rng.uniform(0.4, 0.52),
        eye=rng.uniform(1.4, 2.1),
    )
    road, pavement = rng.uniform(3.2, 5.0), rng.uniform(1.8, 3.2)
    street = _Street(road, pavement, road + pavement + rng.uniform(0.1, 2.0))
    sky = int(rng.integers(len(_SKIES)))
    _sky(canvas, camera, sky)
    _ground(canvas, camera, street)
    for _, draw in sorted(_things(canvas, camera, street), key=lambda thing: -thing[0]):
        draw()
    _shadows(canvas, camera, street)
    image, label = canvas.finish()
    label[:VOID_BORDER] = label[-VOID_BORDER:] = VOID
    label[:, :VOID_BORDER] = label[:, -VOID_BORDER:] = VOID
    return _expose(rng, image, dark=sky == len(_SKIES) - 1), label


def encode_scene(seed: int) -> tuple[bytes, bytes]:
    """The scene as a JPEG file, and its label as a palette PNG whose values are class ids."""
    image, label = draw_scene(seed)
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=88)
    # A full palette: with fewer colours a PNG may not hold the void's 255.
    palette = (*label_space("street_scenes").palette, *[(0, 0, 0)] * 245)
    return sink.getvalue(), encode_mask(label, palette)


def _sky(canvas: Canvas, camera: Camera, kind: int) -> None:
    rng = canvas.rng
    top, bottom = _SKIES[kind]
    canvas.gradient(tint(rng, top, 8), tint(rng, bottom, 8), CLASS["sky"])
    canvas.texture(CLASS["sky"], 6, rng.uniform(2, 14))
    x = -30.0
    while x < 30:
        width, top_metres = rng.uniform(3, 9), rng.uniform(4, 16)
        haze = tint(rng, (132, 136, 148), 16)
        canvas.polygon(camera.front(x, x + width, 0, top_metres, 70), haze, CLASS["building"])
        x += width + (rng.uniform(0, 6) if rng.random() < 0.4 else 0)


def _ground(canvas: Canvas, camera: Camera, street: _Street) -> None:
    rng, far = canvas.rng, 200.0
    paving, asphalt = tint(rng, (150, 142, 132), 16), tint(rng, (86, 86, 92), 14)
    canvas.polygon(camera.ground(-60, 60, 0.8, far), paving, CLASS["pavement"])
    for z in np.arange(1.0, 30, 1.2):
        canvas.polygon(camera.ground(-30, 30, z, z + 0.05), tint(rng, paving, 12), CLASS["pavement"])
    canvas.texture(CLASS["pavement"], 70, 8)
    canvas.polygon(camera.ground(-street.road - 0.15, street.road + 0.15, 0.8, far), (176, 172, 166), CLASS["pavement"])
    canvas.polygon(camera.ground(-street.road, street.road, 0.8, far), asphalt, CLASS["road"])
    canvas.texture(CLASS["road"], 120, 7)
    canvas.texture(CLASS["road"], 9, 9)
    worn = tint(rng, (206, 204, 196), 14)
    for z in np.arange(rng.uniform(0.8, 5), 70, 6.0):
        canvas.polygon(camera.ground(-0.08, 0.08, z, z + 2.6), worn, CLASS["road"])
    if rng.random() < 0.35:
        start = rng.uniform(5, 12)
        for x in np.arange(-street.road + 0.3, street.road - 0.4, 0.9):
            canvas.polygon(camera.ground(x, x + 0.45, start, start + 2.5), worn, CLASS["road"])


Thing = tuple[float, Callable[[], None]]


def _things(canvas: Canvas, camera: Camera, street: _Street) -> list[Thing]:
    """Everything that stands on the ground, with its distance; the far ones are drawn first."""
    things: list[Thing] = []
    for side in (-1.0, 1.0):
        things += _facades(canvas, camera, side * street.facade)
        things += _kerbside(canvas, camera, street, side)
    return things + _traffic(canvas, camera, street)


def _facades(canvas: Canvas, camera: Camera, x: float) -> list[Thing]:
    rng, things = canvas.rng, []
    z = rng.uniform(1.5, 4)
    while z < 60:
        far = z + rng.uniform(6, 14)
        if rng.random() < 0.85:
            top = rng.uniform(5, 15)
            things.append((z, _call(paint.building, canvas, camera, x, z, far, top)))
        z = far + (rng.uniform(1, 6) if rng.random() < 0.3 else 0.0)
    return things


def _kerbside(canvas: Canvas, camera: Camera, street: _Street, side: float) -> list[Thing]:
    rng, kerb, things = canvas.rng, side * (street.road + 0.5), []
    walk = (street.road + 0.7, street.road + street.pavement)
    for z in np.arange(rng.uniform(4, 12), 50, rng.uniform(9, 16)):
        if rng.random() < 0.8:
            things.append((z, _call(paint.lamp, canvas, camera, kerb, z)))
    for z in rng.uniform(5, 45, rng.integers(0, 5)):
        things.append((z, _call(paint.tree, canvas, camera, side * rng.uniform(*walk), z)))
    for z in rng.uniform(4, 24, rng.integers(0, 3)):
        things.append((z, _call(paint.sign, canvas, camera, kerb + side * rng.uniform(-0.1, 0.4), z)))
    if rng.random() < 0.45:
        near = rng.uniform(3, 14)
        things.append((near, _call(paint.fence, canvas, camera, kerb, near, near + rng.uniform(4, 14))))
    for z in rng.uniform(3.5, 22, rng.integers(0, 5)):
        things.append((z, _call(paint.person, canvas, camera, side * rng.uniform(*walk), z)))
    return things


def _traffic(canvas: Canvas, camera: Camera, street: _Street) -> list[Thing]:
    rng, things = canvas.rng, []
    for z in rng.uniform(5, 40, rng.integers(1, 5)):
        lane = rng.choice([-1.0, 1.0])
        x = lane * street.road * rng.uniform(0.35, 0.6)
        things.append((z, _call(paint.car, canvas, camera, x, z, bool(lane < 0))))
    for z in np.arange(rng.uniform(4, 12), 40, rng.uniform(5.2, 9)):
        if rng.random() < 0.3:
            x = rng.choice([-1.0, 1.0]) * (street.road - 1.0)
            things.append((z, _call(paint.car, canvas, camera, x, z, bool(rng.random() < 0.5))))
    for z in rng.uniform(4, 18, rng.integers(0, 3)):
        things.append((z, _call(paint.cyclist, canvas, camera, rng.uniform(-0.8, 0.8) * street.road, z)))
    if rng.random() < 0.3:
        z = rng.uniform(5, 14)
        things.append((z, _call(paint.person, canvas, camera, rng.uniform(-0.7, 0.7) * street.road, z)))
    return things


def _call(painter: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: painter(*arguments)


def _shadows(canvas: Canvas, camera: Camera, street: _Street) -> None:
    """Shadows of houses that cannot be seen, across the street."""
    rng = canvas.rng
    for z in rng.uniform(3, 30, rng.integers(0, 3)):
        lean, depth = rng.uniform(-2, 2), rng.uniform(1, 5)
        ground = [(-street.facade, z), (-street.facade, z + depth), (2.0, z + depth + lean), (2.0, z + lean)]
        if min(place for _, place in ground) > 1:
            canvas.shade([camera.point(x, 0, place) for x, place in ground], rng.uniform(0.2, 0.45))
    canvas.texture(CLASS["building"], 60, 6)
    canvas.texture(CLASS["tree"], 110, 12)


def _expose(rng: np.random.Generator, image: NDArray[np.float32], *, dark: bool) -> NDArray[np.uint8]:
    """Light, lens and sensor: cast, haze, vignette, exposure, blur and noise."""
    height, width = image.shape[:2]
    image = image * rng.normal(1, 0.05, 3) + smooth_noise(rng, height, width, 3)[:, :, None] * rng.uniform(0, 9)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - rng.uniform(0.05, 0.25) * (rows**2 + columns**2) / 2
    exposure = rng.uniform(0.6, 0.85) if dark else rng.uniform(0.9, 1.3)
    image = 255 * (image * vignette[:, :, None] * exposure / 255).clip(0, 1) ** rng.uniform(0.85, 1.2)
    blurred = Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(abs(rng.normal(0, 0.6)))
    )
    grain = rng.normal(0, rng.uniform(2, 9 if dark else 6), (height, width, 3))
    return (np.asarray(blurred) + grain).clip(0, 255).astype(np.uint8)
