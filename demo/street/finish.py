"""Camera simulation, from linear light to an 8-bit picture: lens, exposure, color cast and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo.street.camera import Floats

__all__ = ["develop"]


def develop(colour: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert linear RGB (H, W, 3) to display RGB (H, W, 3) uint8."""
    height, width = colour.shape[:2]
    colour = colour * _vignette(height, width, rng.uniform(0, 0.35))
    # Set the exposure from the median brightness, with a random error as in a real camera.
    exposure = 0.24 / max(1e-3, float(np.median(colour))) * np.exp(rng.normal(0, 0.22))
    cast = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    colour = _noisy(colour * np.float32(min(exposure, 4.0)) * cast, rng)
    # Compress highlights, then encode with gamma 2.2.
    toned = colour * (1 + colour / 9) / (1 + colour * 0.55)
    display = np.clip(toned, 0, 1) ** (1 / 2.2)
    picture = Image.fromarray((display * 255).round().astype(np.uint8))
    blur = float(rng.choice([0.0, 0.35, 0.7, 1.1], p=[0.3, 0.4, 0.2, 0.1]))
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(picture)


def _noisy(colour: Floats, rng: np.random.Generator) -> Floats:
    """Add noise: shot noise grows with the square root of the light, read noise is constant."""
    shot = rng.uniform(0.006, 0.03)
    read = rng.uniform(0.001, 0.005)
    grain = rng.standard_normal(colour.shape).astype(np.float32)
    return np.maximum(colour + grain * (shot * np.sqrt(np.maximum(colour, 0)) + read), 0).astype(np.float32)


def _vignette(height: int, width: int, strength: float) -> Floats:
    """Return the brightness factor (H, W, 1), which falls from the center to 1 - `strength` in the corners."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return (1 - np.float32(strength) * (rows**2 + columns**2) / 2)[..., None]
