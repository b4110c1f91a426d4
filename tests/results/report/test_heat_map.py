"""Tests of the heat map's numbers and colors, and of the paper's figures."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.label_spaces import LABEL_SPACES
from pipeline.results.report.class_rows import paper_figures
from pipeline.results.report.heat_map import confused_pairs, heat_map, shade


def confusion(classes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 1000, (classes, classes)).astype(float)


@pytest.mark.parametrize("classes", [1, 5, 34, 35, 150])
def test_rows_sum_to_a_whole(classes: int) -> None:
    counts = confusion(classes)
    found = heat_map(counts, [f"class {each}" for each in range(classes)])
    assert sum(row.pixels for row in found.rows) == counts.sum()
    for row in found.rows:
        assert sum(cell.share for cell in row.cells if cell.share is not None) == pytest.approx(1)
        assert len(row.cells) == len(found.columns) <= 35


def test_cells_are_parts_of_their_row() -> None:
    found = heat_map(np.array([[90.0, 10.0, 0.0], [1.0, 249.0, 0.0], [0.0, 0.0, 0.0]]), ["a", "b", "c"])
    assert [[cell.text for cell in row.cells] for row in found.rows] == [["90", "10", ""], ["", "100", ""], [""] * 3]
    assert [cell.share for cell in found.rows[0].cells] == [0.9, 0.1, 0.0]
    assert [cell.share for cell in found.rows[2].cells] == [None] * 3


def test_of_many_classes_the_most_frequent_are_shown() -> None:
    counts = np.diag(np.arange(1.0, 6.0))
    counts[4, 0] = 5.0
    found = heat_map(counts, list("abcde"), most=2)
    assert found.columns == ("d", "e", "other") and found.folded == 3
    assert [cell.share for cell in found.rows[1].cells] == [0.0, 0.5, 0.5]
    assert [cell.share for cell in found.rows[2].cells] == [0.0, 0.0, 1.0]


def test_shades_grow_darker_and_their_text_can_be_read() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    before = 2.0
    for share in np.linspace(0, 1, 101):
        background, ink = (luminance(colour) for colour in shade(float(share)))
        assert background < before
        assert (max(background, ink) + 0.05) / (min(background, ink) + 0.05) >= 4.5
        before = background


def test_confused_pairs_are_the_most_pixels_and_never_a_class_with_itself() -> None:
    counts = np.array([[50.0, 3.0, 7.0], [0.0, 9.0, 1.0], [0.0, 0.0, 4.0]])
    pairs = confused_pairs(counts, ["a", "b", "c"])
    found = [(pair.target, pair.predicted, pair.pixels) for pair in pairs]
    assert found == [("a", "c", 7), ("a", "b", 3), ("b", "c", 1)]
    assert [pair.share for pair in pairs] == pytest.approx([7 / 60, 3 / 60, 1 / 10])
    assert len(confused_pairs(confusion(9), list("abcdefghi"))) == 10


@pytest.mark.parametrize("space", ["camvid", "camvid_segnet", "kitti", "cityscapes", "cityscapes_label_ids", "voc"])
def test_the_paper_s_figures_belong_to_their_classes(space: str) -> None:
    names = LABEL_SPACES[space].classes
    (figures,) = paper_figures(names, space)
    assert figures.name.lower() == space.split("_")[0]
    assert set(names) - set(figures.iou) == ({"background"} if space == "voc" else set())
    # VOC's mean includes the background, which the paper does not print; its implied value must be possible.
    total = sum(figures.iou.values())
    printed = figures.mean * len(names)
    assert 85 < printed - total < 100 if space == "voc" else abs(total - printed) < 0.06 * len(names)


def test_figures_go_by_name_and_not_by_order() -> None:
    (figures,) = paper_figures(LABEL_SPACES["camvid_segnet"].classes, "camvid_segnet")
    assert (figures.iou["sky"], figures.iou["building"], figures.iou["bicyclist"]) == (89.9, 82.6, 55.5)


def test_classes_of_two_data_sets_have_both_figures_and_others_none() -> None:
    assert [row.name for row in paper_figures(LABEL_SPACES["camvid"].classes)] == ["CamVid", "KITTI"]
    assert paper_figures(LABEL_SPACES["street_scenes"].classes) == []
    assert paper_figures(LABEL_SPACES["street_scenes"].classes, "camvid") == []
