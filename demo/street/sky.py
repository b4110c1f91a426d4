"""Sky and clouds."""

from __future__ import annotations

import numpy as np

from demo.street.canvas import Canvas, Region
from demo.street.noise import Noise

__all__ = ["draw_sky"]


def draw_sky(canvas: Canvas, noise: Noise) -> None:
    """Paint everything above the horizon."""
    camera = canvas.camera
    light = canvas.light
    bottom = int(np.clip(camera.horizon + 2, 1, camera.height))
    region = Region(slice(0, bottom), slice(0, camera.width), np.ones((bottom, camera.width), bool))
    rows, columns = region.centres()
    x, y, z = camera.rays(rows, columns)
    up = np.maximum(y, 1e-3) / np.sqrt(x**2 + y**2 + z**2)
    # Gradient from skyline to zenith, then a glow around the sun.
    high = (up**0.55)[..., None]
    colour = light.skyline * (1 - high) + light.zenith * high
    facing = (x * light.towards_sun[0] + y * light.towards_sun[1] + z * light.towards_sun[2]) / np.sqrt(
        x**2 + y**2 + z**2
    )
    glow = np.clip(facing, 0, 1)[..., None] ** 24
    colour = colour + light.sun * glow * np.float32(0.35 * (1 - 0.7 * light.clouds))
    # Clouds form a flat layer overhead, so they are denser towards the horizon.
    reach = 45 / (up + 0.12)
    shape = noise.clouds(x * reach, z * reach) + 0.25 * noise.clouds(4 * x * reach, 4 * z * reach)
    cover = np.clip((shape + 2.4 * light.clouds - 1.35) * 0.9, 0, 1) * np.clip(up * 7, 0, 1)
    bright = light.skyline * 0.75 + light.sun * 0.14 + 0.12
    tone = bright * (1 - 0.16 * np.clip(shape, 0, 2)[..., None])
    cover = (cover * 0.85)[..., None]
    canvas.paint(region, colour * (1 - cover) + tone * cover, "sky", 0.0)
