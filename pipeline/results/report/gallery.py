"""Gallery of a report: the images that it shows, each fetched and drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.labels import decode_mask
from pipeline.results.report.contact_sheet import overlay
from pipeline.results.report.page import Pixels, data_uri, error_map, shrink
from pipeline.results.report.survey import Survey
from pipeline.results.sources import Sources
from pipeline.results.statistics.top import Positions
from pipeline.results.tables import Run

__all__ = ["Example", "Group", "Picture", "gallery"]

_COLUMNS = ("image_uri", "mask", "height", "width", "mean_iou", "mean_confidence", "mean_entropy")


@dataclass(frozen=True)
class Picture:
    """One picture of the page.

    Attributes:
        title: Title of the picture.
        source: Data URI of the picture; None if its file cannot be read anymore.
    """

    title: str
    source: str | None


@dataclass(frozen=True)
class Example:
    """One image of a run with its scores and pictures.

    Attributes:
        uri: URI of the image.
        height: Height in pixels.
        width: Width in pixels.
        mean_iou: Mean IoU in [0, 1]; None without a label.
        confidence: Mean winning probability over the pixels.
        entropy: Mean entropy of the class probabilities over the pixels, nats.
        pictures: Pictures of the image, the prediction and, with a label, the label and the errors.
    """

    uri: str
    height: int
    width: int
    mean_iou: float | None
    confidence: float
    entropy: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Group:
    """Group of images that were chosen for one reason.

    Attributes:
        title: Title of the group.
        note: Sentence that states the reason.
        examples: Images of the group, in the order of the survey.
    """

    title: str
    note: str
    examples: tuple[Example, ...]


def gallery(run: Run, found: Survey) -> list[Group]:
    """Draw the images that the survey chose, in groups; empty groups are left out.

    Without labels the worst and the best images are unknown, and no label is drawn.

    Args:
        run: Committed run.
        found: Survey of the run's images.
    """
    draw = _Drawing(run)
    # With few images, split them, so that none is both among the worst and among the best.
    halves = max(1, found.scores.total // 2)
    kinds = (
        ("Worst", "Lowest mean IoU.", found.worst.positions[:halves]),
        ("Best", "Highest mean IoU.", found.best.positions[: found.scores.total - halves]),
        ("Most uncertain", "Highest mean entropy of the class probabilities.", found.uncertain.positions),
        ("Random", "Chosen at random from all predicted images.", found.random.positions),
    )
    groups = [Group(title, note, tuple(draw.examples(positions))) for title, note, positions in kinds]
    return [group for group in groups if group.examples]


class _Drawing:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._sources = Sources(run)
        self._palette = np.asarray(run.success["palette"], np.uint8)
        self._ignore_label = int(run.success["ignore_label"])
        # An image may be in several groups; it is drawn once.
        self._drawn: dict[int, Example] = {}

    def examples(self, positions: Positions) -> Iterator[Example]:
        for position in positions.tolist():
            if position not in self._drawn:
                self._drawn[position] = self._example(position)
            yield self._drawn[position]

    def _example(self, position: int) -> Example:
        row = self._run.row("predictions/", position, _COLUMNS)
        label_uri = self._run.row("manifest/", position, ["label_uri"])["label_uri"]
        image = self._sources.image(row["image_uri"])
        mask = decode_mask(row["mask"]["bytes"])
        label = self._sources.read_label(label_uri)
        pictures = [*self._pictures(image, mask, label, labelled=label_uri is not None)]
        scores = (row["mean_iou"], row["mean_confidence"], row["mean_entropy"])
        return Example(row["image_uri"], row["height"], row["width"], *scores, tuple(pictures))

    def _pictures(
        self, image: Pixels | None, mask: Pixels, label: Pixels | None, *, labelled: bool
    ) -> Iterator[Picture]:
        # The files may have been replaced since the run; those of another size are not shown.
        image = image if image is not None and image.shape[:2] == mask.shape else None
        label = label if label is not None and label.shape == mask.shape else None
        image, mask, label = shrink(image, mask, label)
        yield Picture("Image", None if image is None else data_uri(image))
        yield Picture("Prediction", data_uri(self._over(image, mask)))
        if labelled:
            yield Picture("Label", None if label is None else data_uri(self._over(image, label)))
            errors = None if label is None else error_map(image, mask, label, self._ignore_label)
            yield Picture("Errors", None if errors is None else data_uri(errors))

    def _over(self, image: Pixels | None, ids: Pixels) -> Pixels:
        return overlay(image, ids, self._palette, self._ignore_label)
