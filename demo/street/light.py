"""Time of day and weather: sun, sky and haze, with colors in linear RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from demo.street.camera import Floats

__all__ = ["Light", "choose_light", "linear"]


def linear(colour: ArrayLike) -> Floats:
    """Convert 8-bit display RGB to linear RGB from 0 to 1, with gamma 2.2."""
    return (np.asarray(colour, np.float32) / np.float32(255)) ** np.float32(2.2)


@dataclass(frozen=True)
class Light:
    """Sun, sky and haze of one scene; all colors are linear RGB (3,).

    Attributes:
        towards_sun: Unit vector (x, y, z) towards the sun.
        sun: Light that a surface facing the sun receives from it.
        ambient: Light that a surface receives from the sky.
        zenith, skyline: Colors of the sky overhead and at the horizon.
        haze: Color of the air between the camera and an object.
        visibility: Distance in meters after which 1/e of a color is left.
        clouds: Cloud cover from 0 to 1.
        lamps: Share of windows and lamps that are lit.
    """

    towards_sun: tuple[float, float, float]
    sun: Floats
    ambient: Floats
    zenith: Floats
    skyline: Floats
    haze: Floats
    visibility: float
    clouds: float
    lamps: float

    def on(self, normal: Sequence[float], lit: Floats | float = 1.0) -> Floats:
        """Return the light on a surface, (..., 3); `lit` is the share of the sun that reaches it."""
        facing = max(0.0, float(np.dot(normal, self.towards_sun)))
        # A surface that faces up gets all light of the sky; a vertical one gets less, with some reflected by the
        # street.
        ambient = self.ambient * (0.72 + 0.28 * normal[1])
        return ambient + self.sun * facing * np.asarray(lit, np.float32)[..., None]

    def on_figure(self, lit: float) -> Floats:
        """Return the light on a round, upright object; `lit` is the share of the sun that reaches it."""
        return self.on((0.0, 0.3, 0.0), 0.0) + self.sun * np.float32(0.55 * lit)


# Name: range of the sun's elevation in degrees; colors of sun, ambient, zenith and skyline (display RGB); strength of
# sun and ambient; visibility in meters; clouds; lamps.
_MOODS = {
    "noon": ((40, 62), (255, 247, 232), (150, 178, 214), (70, 128, 205), (186, 212, 234), 2.9, 0.62, 420, 0.42, 0.0),
    "morning": ((18, 32), (255, 226, 180), (146, 172, 208), (96, 146, 206), (226, 219, 205), 2.6, 0.55, 260, 0.4, 0.02),
    "overcast": (
        (35, 55),
        (226, 230, 236),
        (186, 192, 202),
        (172, 180, 190),
        (208, 211, 213),
        0.22,
        1.35,
        170,
        1,
        0.08,
    ),
    "golden": ((7, 15), (255, 176, 96), (150, 150, 178), (92, 128, 186), (250, 198, 138), 3.0, 0.5, 210, 0.5, 0.12),
    "dusk": ((3, 5), (206, 132, 132), (104, 118, 164), (52, 70, 122), (214, 150, 128), 0.18, 0.95, 230, 0.55, 0.5),
    "mist": ((25, 45), (240, 236, 226), (186, 194, 204), (196, 202, 206), (216, 218, 217), 0.35, 1.2, 85, 0.7, 0.1),
}
_SHARES = (0.32, 0.2, 0.17, 0.17, 0.1, 0.04)


def choose_light(rng: np.random.Generator) -> Light:
    """Return the light of a random mood (time of day and weather) with a random position of the sun."""
    mood = _MOODS[rng.choice(list(_MOODS), p=_SHARES)]
    elevations, sun, ambient, zenith, skyline, sun_strength, ambient_strength, visibility, clouds, lamps = mood
    elevation = math.radians(rng.uniform(*elevations))
    # The sun is mostly at the side, so that one row of houses is lit and casts its shadow into the street.
    azimuth = math.radians(rng.choice([-1, 1]) * rng.uniform(20, 150))
    flat = math.cos(elevation)
    return Light(
        towards_sun=(flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)),
        sun=linear(sun) * np.float32(sun_strength * rng.uniform(0.85, 1.15)),
        ambient=linear(ambient) * np.float32(ambient_strength * rng.uniform(0.85, 1.15)),
        zenith=linear(zenith),
        skyline=linear(skyline),
        haze=linear(skyline) * np.float32(0.92),
        visibility=visibility * rng.uniform(0.75, 1.5),
        clouds=float(np.clip(clouds + rng.uniform(-0.3, 0.3), 0, 1)),
        lamps=lamps,
    )
