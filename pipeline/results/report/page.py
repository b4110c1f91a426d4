"""Web pages in one file: HTML templates, and pictures as data URIs."""

from __future__ import annotations

import base64
import io

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.results.report.contact_sheet import overlay

__all__ = ["WRONG", "data_uri", "error_map", "hex_colour", "page_environment", "shrink"]


def page_environment(package: str | None = None) -> jinja2.Environment:
    """Return an environment that renders templates of `pipeline.results`, and of another package if one is given.

    A page loads nothing from elsewhere, and runs no script.

    Args:
        package: Name of the second package whose templates can be rendered; None for none.
    """
    packages = ["pipeline.results", *([package] if package else [])]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in packages]),
        autoescape=True,  # names, URIs and messages come from untrusted files
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "count": _count, "between": _between}
    environment.filters |= {"words": _words, "signed": _signed, "signed_between": _signed_between}
    return environment


def hex_colour(colour: tuple[int, int, int]) -> str:
    """Return an RGB color with values from 0 to 255 as `#rrggbb`."""
    return "#" + bytes(colour).hex()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def _signed(value: float | None) -> str:
    # The minus sign has the width of the plus sign; the hyphen does not.
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def _signed_between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice")


Pixels = NDArray[np.uint8]

WRONG = (213, 94, 0)  # vermilion: it differs from pale gray in lightness as well as in hue
_SIDE = 420  # longest side of a picture on the page, pixels
_BYTES = 30_000  # target size of one encoded picture
_PALE, _STRONG = 0.45, 0.9  # weights of the gray image, and of the color of wrong pixels


def shrink(image: Pixels | None, mask: Pixels, label: Pixels | None) -> tuple[Pixels | None, Pixels, Pixels | None]:
    """Reduce an image, its mask and its label by the same whole factor k, which bounds the cost of drawing them.

    The results have fewer than 1,680 pixels on the longest side, four times the side on the page. Pictures that are
    already smaller do not change.

    Args:
        image: (H, W, 3) uint8 RGB image, reduced by averaging k × k pixels; None if there is none.
        mask: (H, W) uint8 class ids. An average of two ids has no meaning, so every k-th pixel is picked.
        label: (H, W) uint8 class ids, picked like those of the mask; None if there is none.

    Returns:
        Image, mask and label with sides of ⌈H / k⌉ and ⌈W / k⌉ pixels.
    """
    step = max(1, max(mask.shape) // (2 * _SIDE))
    if step == 1:
        return image, mask, label
    if image is not None:
        # `reduce` keeps the partial blocks at the border, so its size equals that of the slices below.
        image = np.asarray(Image.fromarray(image).reduce(step))
    return image, mask[::step, ::step].copy(), None if label is None else label[::step, ::step].copy()


def error_map(image: Pixels | None, mask: Pixels, label: Pixels, ignore_label: int) -> Pixels:
    """Draw where a prediction is wrong: right pixels pale gray, wrong ones vermilion, ignored ones dark.

    Args:
        image: (H, W, 3) uint8 RGB image for the gray background. None, or an image of another size, gives white.
        mask: (H, W) uint8 predicted class ids.
        label: (H, W) uint8 class ids; pixels equal to `ignore_label` do not count.
        ignore_label: Value of ignored pixels in `label`; a value above 255 ignores none.

    Returns:
        (H, W, 3) uint8 RGB picture.
    """
    grey = np.full(mask.shape, 255.0, np.float32)
    if image is not None and image.shape[:2] == mask.shape:
        grey = 255 - _PALE * (255 - image.astype(np.float32).mean(axis=2))
    base = np.repeat(grey[:, :, None], 3, axis=2)
    wrong = (mask != label) & (label != ignore_label)
    base[wrong] = _STRONG * np.asarray(WRONG, np.float32) + (1 - _STRONG) * base[wrong]
    # Draw one ignored pixel to get the color that the other pictures give to ignored pixels.
    void = overlay(None, np.zeros((1, 1), np.uint8), np.empty((0, 3), np.uint8), 0)[0, 0]
    base[label == ignore_label] = void
    return base.round().astype(np.uint8)


def data_uri(picture: Pixels) -> str:
    """Return a picture as a WebP data URI, with sides of at most 420 pixels and a length of about 40 kB.

    Args:
        picture: (H, W, 3) uint8 RGB picture of any size.
    """
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    # Lower the quality until the picture is small enough; the last quality is used in any case.
    for quality in (82, 65, 45, 25):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= _BYTES:
            break
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
