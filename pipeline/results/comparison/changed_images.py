"""Pictures of the images that changed most between two runs: both masks, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.labels import decode_mask
from pipeline.results.comparison.compare import Comparison
from pipeline.results.comparison.tally import Change
from pipeline.results.report.contact_sheet import overlay
from pipeline.results.report.gallery import Picture
from pipeline.results.report.pictures import Pixels, data_uri, error_map, shrink
from pipeline.results.sources import Sources
from pipeline.results.tables import Run

__all__ = ["ChangeGroup", "ChangedImage", "change_groups"]

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
