"""Writer of a comparison as tables and one self-contained web page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.labels import decode_mask
from pipeline.data.storage import join
from pipeline.results.comparison.compare import (
    FEW,
    ClassChange,
    Comparison,
    agreement_sentence,
    default_output,
    mean_sentence,
    number_notes,
)
from pipeline.results.comparison.tally import Change
from pipeline.results.report.contact_sheet import overlay
from pipeline.results.report.gallery import Picture
from pipeline.results.report.heat_map import SCALE, heat_map, shade
from pipeline.results.report.page import WRONG, Pixels, data_uri, error_map, hex_colour, page_environment, shrink
from pipeline.results.sources import Sources
from pipeline.results.tables import Run

__all__ = ["ChangeGroup", "ChangedImage", "change_groups", "comparison_html", "write_comparison"]

# Ids of a mask go to 255, so with this value every pixel counts.
_NOTHING_IGNORED = 256


@dataclass(frozen=True)
class ChangedImage:
    """One image that both runs segmented, with its pictures.

    Attributes:
        change: Measured change from A to B.
        pictures: Pictures of the image, the label if it can be read, both masks, and the changed pixels.
    """

    change: Change
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ChangeGroup:
    """Group of images that were chosen for one reason.

    Attributes:
        title: Title of the group.
        note: Sentence that states the reason.
        images: Images of the group, greatest change first.
    """

    title: str
    note: str
    images: tuple[ChangedImage, ...]


def change_groups(comparison: Comparison) -> list[ChangeGroup]:
    """Draw the images that the tally chose, each of them once, in groups; empty groups are left out.

    Args:
        comparison: Finished comparison of two runs.
    """
    draw = _Drawing(comparison)
    tally = comparison.tally
    kinds = (
        ("Changed most", "Largest share of pixels whose class differs between A and B.", tally.changed.items()),
        ("Gained most", "Largest increase of the mean IoU from A to B.", tally.gained.items()),
        ("Lost most", "Largest decrease of the mean IoU from A to B.", tally.lost.items()),
    )
    groups = [ChangeGroup(title, note, tuple(map(draw.image, changes))) for title, note, changes in kinds]
    return [group for group in groups if group.images]


class _Drawing:
    def __init__(self, comparison: Comparison) -> None:
        self._a = comparison.a
        self._b = comparison.b
        self._sources = Sources(comparison.b)
        self._palette = np.asarray(comparison.b.success["palette"], np.uint8)
        self._ignore_label = int(comparison.b.success["ignore_label"])
        # An image may be in several groups; it is drawn once.
        self._drawn: dict[str, ChangedImage] = {}

    def image(self, change: Change) -> ChangedImage:
        if change.uri not in self._drawn:
            self._drawn[change.uri] = ChangedImage(change, tuple(self._pictures(change)))
        return self._drawn[change.uri]

    def _pictures(self, change: Change) -> Iterator[Picture]:
        before = _mask(self._a, change.position_a)
        after = _mask(self._b, change.position_b)
        image = self._of_size(self._sources.image(change.uri), after)
        label_uri = self._b.row("manifest/", change.position_b, ["label_uri"])["label_uri"]
        label = self._of_size(self._sources.read_label(label_uri), after)
        # Both masks have the same size, so both calls reduce by the same factor.
        small, after, label = shrink(image, after, label)
        _, before, _ = shrink(None, before, None)
        yield Picture("Image", None if small is None else data_uri(small))
        if label is not None:
            yield Picture("Label", self._over(small, label))
        yield Picture("A", self._over(small, before))
        yield Picture("B", self._over(small, after))
        yield Picture("Changed", data_uri(error_map(small, after, before, _NOTHING_IGNORED)))

    def _of_size(self, pixels: Pixels | None, mask: Pixels) -> Pixels | None:
        # The files may have been replaced since the run; those of another size are not shown.
        return pixels if pixels is not None and pixels.shape[:2] == mask.shape else None

    def _over(self, image: Pixels | None, ids: Pixels) -> str:
        return data_uri(overlay(image, ids, self._palette, self._ignore_label))


def _mask(run: Run, position: int) -> Pixels:
    return decode_mask(run.row("predictions/", position, ["mask"])["mask"]["bytes"])


_LEAST = 0.01  # minimum IoU difference that half a bar spans, so that noise does not fill the bar


def write_comparison(comparison: Comparison, output: str | None = None) -> str:
    """Write the tables and the page of a comparison, replacing older ones.

    Args:
        comparison: Comparison of two runs; its tables can be written only once.
        output: URI of the folder to write to; None for a folder below B, named by the run identifier of A.

    Returns:
        URI of the page.
    """
    storage = comparison.b.storage
    folder = output or default_output(comparison.a, comparison.b)
    # The page is written last, so a new page never lacks its tables.
    comparison.write_tables(folder)
    page = join(folder, "index.html")
    storage.write(page, comparison_html(comparison).encode())
    return page


def comparison_html(comparison: Comparison) -> str:
    """Return the page of a comparison as HTML; it loads nothing from elsewhere and runs no script.

    Args:
        comparison: Comparison of two runs.
    """
    labelled = comparison.tally.labelled
    changes = [*comparison.classes, comparison.mean]
    run_a, run_b = comparison.run_ids
    palette = comparison.b.success["palette"]
    return (
        page_environment()
        .get_template("comparison/comparison.html")
        .render(
            run_a=run_a,
            run_b=run_b,
            output_a=comparison.a.output,
            output_b=comparison.b.output,
            comparison=comparison,
            labelled=labelled,
            few=0 < labelled < FEW,
            notes=list(number_notes(comparison)),
            mean_sentence=mean_sentence(comparison),
            agreement_sentence=agreement_sentence(comparison),
            changes=changes,
            # All bars share one scale.
            span=max([_LEAST, *(_reach(change) for change in changes)]),
            legend=[(name, hex_colour(colour)) for name, colour in zip(comparison.b.classes, palette, strict=True)],
            groups=change_groups(comparison),
            wrong=hex_colour(WRONG),
            **_agreement_context(comparison),
        )
    )


def _agreement_context(comparison: Comparison) -> dict[str, Any]:
    if comparison.agreement is None:
        return {"heat": None}
    heat = heat_map(comparison.tally.agreement.astype(float), comparison.b.classes)
    return {"heat": heat, "scale": [(share, *shade(share)) for share in SCALE]}


def _reach(change: ClassChange) -> float:
    """Return the greatest distance from 0 of a class's difference bar and its interval, as IoU."""
    score = change.score
    return max(abs(value) for value in (score.difference or 0.0, *(score.interval or ())))
