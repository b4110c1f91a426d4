"""IoU figures that Yu & Koltun (ICLR 2016) print in their tables, for comparison with a run's own scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.label_spaces import LABEL_SPACES

__all__ = ["PaperFigures", "paper_figures"]


@dataclass(frozen=True)
class PaperFigures:
    """One row of the paper's tables: the IoU of each class and their mean.

    Attributes:
        name: Short name of the data set.
        source: Network, split and table of the paper.
        spaces: Names of the data set's label spaces.
        iou: IoU in percent, by class name; a class that the paper does not print is absent.
        mean: Mean IoU in percent, as printed.
    """

    name: str
    source: str
    spaces: tuple[str, ...]
    iou: Mapping[str, float]
    mean: float


def paper_figures(classes: Sequence[str], label_space: str | None = None) -> list[PaperFigures]:
    """Return the rows of the paper's tables that have the given classes, in any order.

    Args:
        classes: Class names of the run.
        label_space: Label space of the run's labels, if the run names one. It selects the data set where several
            have the same classes, as CamVid and KITTI do.

    Returns:
        Matching rows; empty if no data set of the paper has these classes.
    """
    same = [row for row in _ROWS if set(LABEL_SPACES[row.spaces[0]].classes) == set(classes)]
    # Without a label space that decides, all data sets with these classes are shown.
    return [row for row in same if label_space in row.spaces] or same


def _row(name: str, source: str, spaces: tuple[str, ...], figures: Sequence[float], mean: float) -> PaperFigures:
    # The paper omits VOC's background, the first class, although the printed mean includes it.
    names = LABEL_SPACES[spaces[0]].classes[-len(figures) :]
    return PaperFigures(name, source, spaces, dict(zip(names, figures, strict=True)), mean)


# IoU in percent, in the order of the label space's classes.
_ROWS = (
    _row(
        "VOC",
        "front end and Large context, VOC-2012 val (Table 3); the mean includes the background",
        ("voc",),
        (
            *(87.3, 39.2, 80.3, 65.6, 66.4, 90.2, 82.6, 85.8, 34.8, 81.9),
            *(51.7, 79, 84.1, 80.9, 83.2, 51.2, 83.2, 44.7, 83.4, 65.6),
        ),
        72.1,
    ),
    _row(
        "CamVid",
        "Dilation8, CamVid test (Table 5)",
        ("camvid", "camvid_segnet"),
        (82.6, 76.2, 89.9, 84.0, 46.9, 92.2, 56.3, 35.8, 23.4, 75.3, 55.5),
        65.3,
    ),
    _row(
        "KITTI",
        "Dilation7, KITTI test (Table 6)",
        ("kitti",),
        (84.6, 81.1, 83, 81.4, 41.8, 92.9, 4.6, 47.1, 35.2, 73.1, 26.4),
        59.2,
    ),
    _row(
        "Cityscapes",
        "Dilation10, Cityscapes val (Tables 7 and 8)",
        ("cityscapes", "cityscapes_label_ids"),
        (97.2, 79.5, 90.4, 44.9, 52.4, 55.1, 56.7, 69, 91, 58.7, 92.6, 75.7, 50, 92.2, 56.2, 72.6, 54.3, 46.2, 70.1),
        68.7,
    ),
)
