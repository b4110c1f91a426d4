"""What a segmenter tells whoever runs it, and hears from there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

__all__ = ["Surroundings"]


class Surroundings:
    """These do nothing with it.

    Attributes:
        quarantined: image's position in the shard → stage; such an image is not touched.
        overlapping: whether images are loaded and labelled beside the network; else one stage of one image at a time.
    """

    quarantined: Mapping[int, str] = {}
    overlapping = True

    def image(self, ok: bool) -> None:
        """An image is done."""

    def stage(self, position: int, name: str) -> None:
        """A stage of an image begins; stages of several images overlap, if they are `overlapping`."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Around work that may not come back; what is yielded is called when a part of it is done."""
        yield lambda: None
