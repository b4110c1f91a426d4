"""Contact sheet of a run: one picture of images, predictions and labels, from the worst to the best image."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.labels import decode_mask
from pipeline.results.report.survey import Survey, survey
from pipeline.results.sources import Sources
from pipeline.results.tables import Run

__all__ = ["Panel", "choose_panels", "contact_sheet", "draw_sheet", "overlay", "paint_sheet"]

# Layout of the sheet, pixels.
_TILE = 420  # width of one picture
_GAP = 14
_EDGE = 28
_TITLE = 40
_CAPTION = 30
# Colors, RGB.
_BACKGROUND = (250, 250, 249)
_INK = (28, 30, 33)
_MUTED = (105, 110, 117)
_RULE = (222, 223, 225)
_VOID = (40, 40, 42)
_BLEND = 0.6  # weight of the class colors over the image


@dataclass(frozen=True)
class Panel:
    """Content of one row of the sheet.

    Attributes:
        caption: Text below the row.
        image: (H, W, 3) uint8 RGB image; None if it cannot be read anymore.
        mask: (H, W) uint8 predicted class ids.
        label: (H, W) uint8 class ids of the label; None without a readable label.
    """

    caption: str
    image: NDArray[np.uint8] | None
    mask: NDArray[np.uint8]
    label: NDArray[np.uint8] | None


def contact_sheet(run: Run, count: int = 6, found: Survey | None = None) -> bytes | None:
    """Return the contact sheet of a run as PNG bytes, or None if the run has no predicted image.

    Args:
        run: Committed run.
        count: Maximum number of images, spread evenly from the lowest to the highest mean IoU.
        found: Survey of the run; None to survey it now.
    """
    panels = choose_panels(run, count, found)
    palette = np.asarray(run.success["palette"], np.uint8)
    return draw_sheet(panels, run.classes, palette, run.success["ignore_label"]) if panels else None


def choose_panels(run: Run, count: int, found: Survey | None = None) -> list[Panel]:
    """Choose images evenly over the sorted mean IoU, or evenly over the manifest in a run without labels.

    If there are more than 10,000 images, a sample stands for those between the lowest and the highest.

    Args:
        run: Committed run.
        count: Maximum number of images.
        found: Survey of the run; None to survey it now.

    Returns:
        One panel per image, lowest mean IoU first.
    """
    found = found or survey(run, 1)
    positions = _spread(found)
    total = found.scores.total
    # Evenly spaced ranks, with both ends; `unique` also sorts them.
    picks = np.unique(np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int))
    ranks = {0: "lowest", len(positions) // 2: "median", len(positions) - 1: "highest"}
    sources = Sources(run)
    panels = []
    for pick in picks.tolist():
        row = run.row("predictions/", int(positions[pick]), ["image_uri", "mask", "mean_iou"])
        label_uri = run.row("manifest/", int(positions[pick]), ["label_uri"])["label_uri"]
        caption = row["image_uri"].rsplit("/", 1)[-1]
        if row["mean_iou"] is not None:
            rank = f"  ({ranks[pick]} of {total})" if pick in ranks else ""
            caption += f"   mean IoU {100 * row['mean_iou']:.1f}" + rank
        mask = decode_mask(row["mask"]["bytes"])
        image = sources.image(row["image_uri"])
        panels.append(Panel(caption, image, mask, sources.read_label(label_uri)))
    return panels


def _spread(found: Survey) -> NDArray[np.int64]:
    """Return positions of images that represent the run, sorted by mean IoU, or in manifest order without labels."""
    if not found.scores.total:
        return np.sort(found.sample.positions)
    scores = dict(zip(found.sample.positions.tolist(), found.sample.values.tolist(), strict=True))
    # NaN, the score of an image without a label, is the only value that differs from itself.
    scores = {position: score for position, score in scores.items() if score == score}
    # The sample may miss the extremes. Scores outside [0, 1] put them at both ends.
    scores |= {int(found.worst.positions[0]): -1.0, int(found.best.positions[0]): 2.0}
    return np.array(sorted(scores, key=lambda position: (scores[position], position)), np.int64)


def overlay(
    image: NDArray[np.uint8] | None, ids: NDArray[np.uint8], palette: NDArray[np.uint8], ignore_label: int
) -> NDArray[np.uint8]:
    """Blend the colors of class ids over an image.

    Args:
        image: (H, W, 3) uint8 RGB image. None, or an image of another size, gives the plain colors.
        ids: (H, W) uint8 class ids. Ids without a color in the palette are dark.
        palette: (C, 3) uint8 RGB color of each class.
        ignore_label: Id of ignored pixels, which are dark; a value above 255 ignores none.

    Returns:
        (H, W, 3) uint8 RGB picture.
    """
    # Lookup table of all 256 ids: (H, W) ids -> (H, W, 3) colors.
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
    """Draw the contact sheet and return it as PNG bytes.

    Args:
        panels: Rows of the sheet.
        class_names: Names of the C classes, for the legend.
        palette: (C, 3) uint8 RGB color of each class.
        ignore_label: Id of ignored pixels, which are dark.
    """
    buffer = io.BytesIO()
    paint_sheet(panels, class_names, palette, ignore_label).save(buffer, "PNG")
    return buffer.getvalue()


def paint_sheet(
    panels: Sequence[Panel],
    class_names: Sequence[str],
    palette: NDArray[np.uint8],
    ignore_label: int,
    titles: Sequence[str] = ("Image", "Prediction", "Label"),
) -> Image.Image:
    """Draw the contact sheet: a legend of the classes above rows of image, mask and label.

    Args:
        panels: Rows of the sheet.
        class_names: Names of the C classes, for the legend.
        palette: (C, 3) uint8 RGB color of each class.
        ignore_label: Id of ignored pixels, which are dark.
        titles: Titles of the three columns image, mask and label. The last column is drawn only if a panel has a
            label.
    """
    with_labels = any(panel.label is not None for panel in panels)
    titles = titles[: 3 if with_labels else 2]
    heights = [math.ceil(_TILE * panel.mask.shape[0] / panel.mask.shape[1]) for panel in panels]
    # A very tall image would dominate the sheet.
    heights = [min(height, 2 * _TILE) for height in heights]
    width = 2 * _EDGE + len(titles) * _TILE + (len(titles) - 1) * _GAP
    entries = [(name, tuple(int(v) for v in colour)) for name, colour in zip(class_names, palette, strict=True)]
    if with_labels:
        entries.append(("ignored", _VOID))
    # The height of the legend depends on its names, and the height of the sheet on the legend.
    places, legend_height = _legend_places([name for name, _ in entries], width - 2 * _EDGE)
    top = _EDGE + legend_height + _GAP
    sheet = Image.new("RGB", (width, top + _TITLE + sum(heights) + _CAPTION * len(panels) + _EDGE), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    # Legend: a swatch and a name per class.
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rounded_rectangle(
            (_EDGE + x, _EDGE + y + 3, _EDGE + x + 18, _EDGE + y + 21), 4, fill=colour, outline=_RULE
        )
        draw.text((_EDGE + x + 26, _EDGE + y + 12), name, _INK, _font_for(name, 16), anchor="lm")
    draw.line((_EDGE, top, width - _EDGE, top), fill=_RULE)
    # Column titles.
    columns = [_EDGE + index * (_TILE + _GAP) for index in range(len(titles))]
    for x, title in zip(columns, titles, strict=True):
        draw.text((x, top + _TITLE / 2), title, _MUTED, _font(16), anchor="lm")
    # One row of pictures per panel, with its caption below.
    y = top + _TITLE
    for panel, height in zip(panels, heights, strict=True):
        for x, picture in zip(columns, _pictures(panel, palette, ignore_label), strict=False):
            _paste(sheet, draw, picture, (x, y), height)
        draw.text((_EDGE, y + height + 6), panel.caption, _MUTED, _font_for(panel.caption, 14))
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
    # The picture keeps its aspect ratio, and is centered in a cell of another shape.
    rows, columns = picture.shape[:2]
    scale = min(_TILE / columns, height / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    place = (x + (_TILE - size[0]) // 2, y + (height - size[1]) // 2)
    sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), place)


def _legend_places(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Return the (x, y) position of each legend entry and the legend's height, in pixels; lines wrap at `width`."""
    places = []
    x = 0
    y = 0
    line = 30
    for name in names:
        # Swatch and space, text, space before the next entry.
        entry = 26 + round(_font_for(name, 16).getlength(name)) + 26
        if x and x + entry - 26 > width:
            x = 0
            y = y + line
        places.append((x, y))
        x += entry
    return places, y + line


@cache
def _font(size: int, *, latin: bool = True) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, or DejaVu Sans, which comes with matplotlib and has many more alphabets."""
    if latin:
        return ImageFont.load_default(size)
    # Imported here because most sheets do not need it.
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _font(size, latin=all(ord(character) < 256 for character in text))
