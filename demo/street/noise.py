"""Random textures that tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.street.camera import Floats

__all__ = ["Noise"]

_SIZE = 512


class Noise:
    """A fractal texture and a table of random numbers for cells such as windows and paving stones.

    Args:
        rng: decides both.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE)))
        rows = np.fft.fftfreq(_SIZE)[:, None]
        columns = np.fft.rfftfreq(_SIZE)[None, :]
        frequency = np.hypot(rows, columns)
        frequency[0, 0] = np.inf
        texture = np.fft.irfft2(spectrum / frequency**1.15, s=(_SIZE, _SIZE))
        self._texture = (texture / texture.std()).clip(-2.5, 2.5).astype(np.float32)
        self._grain = rng.standard_normal((_SIZE, _SIZE)).astype(np.float32)
        self._table = rng.random(4096).astype(np.float32)

    def clouds(self, u: Floats, v: Floats) -> Floats:
        """Soft shapes of all sizes, about -2.5 to 2.5; repeats every 512 units of u and v."""
        return self._texture[v.astype(np.int32) % _SIZE, u.astype(np.int32) % _SIZE]

    def grain(self, u: Floats, v: Floats) -> Floats:
        """Independent normal numbers per unit cell."""
        return self._grain[v.astype(np.int32) % _SIZE, u.astype(np.int32) % _SIZE]

    def cells(self, i: Floats, j: Floats, which: int = 0) -> NDArray[np.float32]:
        """A number from 0 to 1 for each integer cell (i, j); `which` selects another, independent one."""
        mixed = i.astype(np.int64) * 73856093 ^ j.astype(np.int64) * 19349663 ^ which * 83492791
        return self._table[(mixed ^ mixed >> 13) & 4095]
