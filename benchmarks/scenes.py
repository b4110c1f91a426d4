"""Scenes of the demo as a data set for measurements."""

from __future__ import annotations

from demo.street.scene import encode_scene
from pipeline.data.storage import Storage, join

__all__ = ["draw_scenes"]


def draw_scenes(root: str, *, train: int, val: int) -> str:
    """Draw scenes that are not yet below `root`, and return `root`.

    The splits have disjoint seeds; `val` has the seeds of the demo's held-out scenes.

    Args:
        root: URI of the data set.
        train: Number of training scenes.
        val: Number of validation scenes.
    """
    storage = Storage()
    for split, first, count in (("train", 0, train), ("val", 200_000, val)):
        there = len(storage.list(join(root, split, "labels")))
        for seed in range(first + there, first + count):
            image, label = encode_scene(seed)
            storage.write(join(root, split, "images", f"{seed:06d}.jpg"), image)
            storage.write(join(root, split, "labels", f"{seed:06d}.png"), label)
    return root
