"""Small pictures for the page: an image, class ids over it, and where a prediction is wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.results.report.contact_sheet import overlay

__all__ = ["WRONG", "data_uri", "error_map", "shrink"]

Pixels = NDArray[np.uint8]

WRONG = (213, 94, 0)  # vermilion: beside pale grey, a difference of lightness as well as of hue
_SIDE = 420  # longest side of a picture on the page, pixels
_BYTES = 30_000  # of one picture
_PALE, _STRONG = 0.45, 0.9  # weights of the grey image, and of what is wrong


def shrink(image: Pixels | None, mask: Pixels, label: Pixels | None) -> tuple[Pixels | None, Pixels, Pixels | None]:
    """Every k-th pixel of each, so that drawing a huge image costs no more than drawing one of twice the page's size.

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W) class ids. Nothing lies between two ids, so they are picked, not averaged.
        label: (H, W) class ids.
    """
    step = max(1, max(mask.shape) // (2 * _SIDE))
    if step == 1:
        return image, mask, label
    if image is not None:
        # Averages k x k pixels, and those that are left at the border too, as slicing does.
        image = np.asarray(Image.fromarray(image).reduce(step))
    return image, mask[::step, ::step].copy(), None if label is None else label[::step, ::step].copy()


def error_map(image: Pixels | None, mask: Pixels, label: Pixels, ignore_label: int) -> Pixels:
    """The image in pale grey where the prediction is right, vermilion where it is wrong, dark where it does not count.

    Args:
        image: (H, W, 3) RGB; None = plain.
        mask: (H, W) predicted class ids.
        label: (H, W) class ids, or `ignore_label`.
        ignore_label: see `label`.

    Returns:
        (H, W, 3) RGB.
    """
    grey = np.full(mask.shape, 255.0, np.float32)
    if image is not None and image.shape[:2] == mask.shape:
        grey = 255 - _PALE * (255 - image.astype(np.float32).mean(axis=2))
    base = np.repeat(grey[:, :, None], 3, axis=2)
    wrong = (mask != label) & (label != ignore_label)
    base[wrong] = _STRONG * np.asarray(WRONG, np.float32) + (1 - _STRONG) * base[wrong]
    # The colour that the other pictures give to ignored pixels.
    void = overlay(None, np.zeros((1, 1), np.uint8), np.empty((0, 3), np.uint8), 0)[0, 0]
    base[label == ignore_label] = void
    return base.round().astype(np.uint8)


def data_uri(picture: Pixels) -> str:
    """A picture as a data URI of at most 420 pixels a side and about 40 kB."""
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    for quality in (82, 65, 45, 25):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= _BYTES:
            break
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
