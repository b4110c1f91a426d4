"""The demo's scenes as a data set for measurements."""

from __future__ import annotations

from demo.street.scene import encode_scene
from pipeline.data.storage import Storage, join

__all__ = ["draw_scenes"]


def draw_scenes(root: str, *, train: int, val: int) -> str:
    """Draws what is not there yet below `root`; other seeds for each split, the held-out ones of the demo for val."""
    storage = Storage()
    for split, first, count in (("train", 0, train), ("val", 200_000, val)):
        there = len(storage.list(join(root, split, "labels")))
        for seed in range(first + there, first + count):
            image, label = encode_scene(seed)
            storage.write(join(root, split, "images", f"{seed:06d}.jpg"), image)
            storage.write(join(root, split, "labels", f"{seed:06d}.png"), label)
    return root
