"""Tests of the printed table."""

from __future__ import annotations

from pipeline.results.console import class_table


def test_undefined_is_a_dash_and_columns_line_up() -> None:
    rows = [
        {"class_name": "sky", "iou": 0.5, "predicted_pixels": 30},
        {"class_name": "bicyclist", "iou": None, "predicted_pixels": 0},
        {"class_name": "car", "iou": 0.0, "predicted_pixels": 10},
    ]
    lines = class_table(rows, 0.25).splitlines()
    assert lines[1].split() == ["sky", "50.0", "75.0%", "█" * 15]
    assert lines[2].split() == ["bicyclist", "–", "0.0%"]
    assert lines[3].split() == ["car", "0.0", "25.0%"]
    assert lines[4].split() == ["mean", "25.0"]
    ends = [line.index(value) + len(value) for line, value in zip(lines[1:], ("50.0", "–", "0.0", "25.0"), strict=True)]
    assert len(set(ends)) == 1


def test_nothing_predicted_is_no_division_by_zero() -> None:
    assert "0.0%" in class_table([{"class_name": "a", "iou": None, "predicted_pixels": 0}], None)


def test_without_shares_rows_need_no_counts() -> None:
    assert "%" not in class_table([{"class_name": "a", "iou": 1.0}], 1.0, share=False)
