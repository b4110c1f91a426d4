"""One picture of a run: images, predictions over them and labels, from the worst to the best."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.results.sources import Sources
from pipeline.results.tables import Run

__all__ = ["Panel", "choose_panels", "contact_sheet", "draw_sheet", "overlay", "paint_sheet"]

_TILE = 420  # width of one picture, pixels
_GAP = 14
_EDGE = 28
_TITLE = 40
_CAPTION = 30
_BACKGROUND = (250, 250, 249)
_INK = (28, 30, 33)
_MUTED = (105, 110, 117)
_RULE = (222, 223, 225)
_VOID = (40, 40, 42)
_BLEND = 0.6  # weight of the class colours over the image


@dataclass(frozen=True)
class Panel:
    """One row of the sheet.

    Attributes:
        caption: what stands below it.
        image: (H, W, 3) uint8 RGB; None if it cannot be read any more.
        mask: (H, W) uint8 predicted class ids.
        label: (H, W) uint8 class ids; None without a label.
    """

    caption: str
    image: NDArray[np.uint8] | None
    mask: NDArray[np.uint8]
    label: NDArray[np.uint8] | None


def contact_sheet(run: Run, count: int = 6) -> bytes | None:
    """The contact sheet of a run as PNG bytes; None if it has no predicted image.

    Args:
        run: a committed run.
        count: at most so many images, spread evenly from the lowest to the highest mean IoU.
    """
    panels = choose_panels(run, count)
    palette = np.asarray(run.success["palette"], np.uint8)
    return draw_sheet(panels, run.classes, palette, run.success["ignore_label"]) if panels else None


def choose_panels(run: Run, count: int) -> list[Panel]:
    """Rows spread over the mean IoU of the images; evenly over the manifest in a run without labels."""
    rows = run.predictions(["image_uri", "status", "mean_iou"])
    rows = rows[rows["status"] == "ok"]
    if rows["mean_iou"].notna().any():
        rows = rows[rows["mean_iou"].notna()].sort_values("mean_iou", kind="stable")
    picks = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    sources = Sources(run)
    panels = []
    for position in picks:
        uri, score = rows["image_uri"].iloc[position], rows["mean_iou"].iloc[position]
        rank = {0: "lowest", len(rows) // 2: "median", len(rows) - 1: "highest"}.get(int(position), "")
        caption = uri.rsplit("/", 1)[-1]
        if score == score:
            caption += f"   mean IoU {100 * score:.1f}" + (f"  ({rank} of {len(rows)})" if rank else "")
        panels.append(Panel(caption, sources.image(uri), run.mask(uri), sources.label(uri)))
    return panels


def overlay(
    image: NDArray[np.uint8] | None, ids: NDArray[np.uint8], palette: NDArray[np.uint8], ignore_label: int
) -> NDArray[np.uint8]:
    """Colours of class ids over an image.

    Args:
        image: (H, W, 3) uint8 RGB; None = the plain colours.
        ids: (H, W) uint8 class ids.
        palette: (C, 3) uint8 RGB.
        ignore_label: shown dark.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    table = np.full((256, 3), _VOID, np.uint8)
    table[: len(palette)] = palette
    if ignore_label < 256:
        table[ignore_label] = _VOID
    colours = table[ids]
    if image is None or image.shape[:2] != ids.shape:
        return colours
    blended = _BLEND * colours.astype(np.float32) + (1 - _BLEND) * image.astype(np.float32)
    return blended.round().astype(np.uint8)


def draw_sheet(
    panels: Sequence[Panel], class_names: Sequence[str], palette: NDArray[np.uint8], ignore_label: int
) -> bytes:
    """Draws the rows and the legend; returns PNG bytes."""
    buffer = io.BytesIO()
    paint_sheet(panels, class_names, palette, ignore_label).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def paint_sheet(
    panels: Sequence[Panel],
    class_names: Sequence[str],
    palette: NDArray[np.uint8],
    ignore_label: int,
    titles: Sequence[str] = ("Image", "Prediction", "Label"),
) -> Image.Image:
    """Draws the rows and the legend; `titles` of the columns image, mask and, if there are any, label."""
    with_labels = any(panel.label is not None for panel in panels)
    titles = titles[: 3 if with_labels else 2]
    heights = [max(1, round(_TILE * panel.mask.shape[0] / panel.mask.shape[1])) for panel in panels]
    heights = [min(height, 2 * _TILE) for height in heights]
    width = 2 * _EDGE + len(titles) * _TILE + (len(titles) - 1) * _GAP
    entries = [(name, tuple(int(v) for v in colour)) for name, colour in zip(class_names, palette, strict=True)]
    if with_labels:
        entries.append(("ignored", _VOID))
    places, legend_height = _legend_places([name for name, _ in entries], width - 2 * _EDGE)
    top = _EDGE + legend_height + _GAP
    sheet = Image.new("RGB", (width, top + _TITLE + sum(heights) + _CAPTION * len(panels) + _EDGE), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rounded_rectangle(
            (_EDGE + x, _EDGE + y + 3, _EDGE + x + 18, _EDGE + y + 21), 4, fill=colour, outline=_RULE
        )
        draw.text((_EDGE + x + 26, _EDGE + y + 12), name, _INK, _font(16), anchor="lm")
    draw.line((_EDGE, top, width - _EDGE, top), fill=_RULE)
    columns = [_EDGE + index * (_TILE + _GAP) for index in range(len(titles))]
    for x, title in zip(columns, titles, strict=True):
        draw.text((x, top + _TITLE / 2), title, _MUTED, _font(16), anchor="lm")
    y = top + _TITLE
    for panel, height in zip(panels, heights, strict=True):
        for x, picture in zip(columns, _pictures(panel, palette, ignore_label), strict=False):
            _paste(sheet, draw, picture, (x, y), height)
        draw.text((_EDGE, y + height + 6), panel.caption, _MUTED, _font(14))
        y += height + _CAPTION
    return sheet


def _pictures(panel: Panel, palette: NDArray[np.uint8], ignore_label: int) -> list[NDArray[np.uint8] | None]:
    label = None if panel.label is None else overlay(panel.image, panel.label, palette, ignore_label)
    return [panel.image, overlay(panel.image, panel.mask, palette, ignore_label), label]


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: NDArray[np.uint8] | None,
    corner: tuple[int, int],
    height: int,
) -> None:
    x, y = corner
    if picture is None:
        draw.rectangle((x, y, x + _TILE - 1, y + height - 1), outline=_RULE)
        draw.text((x + _TILE / 2, y + height / 2), "not available", _MUTED, _font(14), anchor="mm")
        return
    sheet.paste(Image.fromarray(picture).resize((_TILE, height), Image.Resampling.LANCZOS), corner)


def _legend_places(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where each legend entry goes, (x, y) in pixels, and the height of all; wraps at `width`."""
    places, x, y, line = [], 0, 0, 30
    for name in names:
        entry = 26 + round(_font(16).getlength(name)) + 26
        if x and x + entry - 26 > width:
            x, y = 0, y + line
        places.append((x, y))
        x += entry
    return places, y + line


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
