"""Random textures that tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.street.camera import Floats

__all__ = ["Noise"]

_SIZE = 512


class Noise:
    """Fractal texture, grain, and a table of random numbers for cells such as windows and paving stones.

    Args:
        rng: Generator that decides all three.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE)))
        rows = np.fft.fftfreq(_SIZE)[:, None]
        columns = np.fft.rfftfreq(_SIZE)[None, :]
        frequency = np.hypot(rows, columns)
        frequency[0, 0] = np.inf
        # Amplitude 1/f^1.15 in the spectrum gives soft shapes of all sizes that tile.
        texture = np.fft.irfft2(spectrum / frequency**1.15, s=(_SIZE, _SIZE))
        self._texture = (texture / texture.std()).clip(-2.5, 2.5).astype(np.float32)
        self._grain = rng.standard_normal((_SIZE, _SIZE)).astype(np.float32)
        self._table = rng.random(4096).astype(np.float32)

    def clouds(self, u: Floats, v: Floats) -> Floats:
        """Return soft shapes of all sizes, from -2.5 to 2.5; they repeat every 512 units of u and v."""
        return self._texture[v.astype(np.int32) % _SIZE, u.astype(np.int32) % _SIZE]

    def grain(self, u: Floats, v: Floats) -> Floats:
        """Return independent normal numbers, one per unit cell; they repeat every 512 units of u and v."""
        return self._grain[v.astype(np.int32) % _SIZE, u.astype(np.int32) % _SIZE]

    def cells(self, i: Floats, j: Floats, which: int = 0) -> NDArray[np.float32]:
        """Return a number from 0 to 1 for each integer cell (i, j); `which` selects another, independent one."""
        # Spatial hash of the cell into a table of 4096 numbers.
        mixed = i.astype(np.int64) * 73856093 ^ j.astype(np.int64) * 19349663 ^ which * 83492791
        return self._table[(mixed ^ mixed >> 13) & 4095]
