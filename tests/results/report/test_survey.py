"""Tests of the report's single pass: results equal those of all rows in memory, with one file in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.results.report.survey import EXAMPLES, Distribution, survey
from pipeline.results.statistics.top import Top
from pipeline.results.tables import Run
from tests.results.reads import watch_reads
from tests.results.run_builders import write_run


def test_worst_best_and_most_uncertain_are_those_of_sorting(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, 40, failed=(0, 17)))
    found = survey(run, 5)
    rows = run.predictions()
    by_score = rows.sort_values("mean_iou", kind="stable").dropna(subset=["mean_iou"])
    assert found.worst.positions.tolist() == by_score.index[:5].tolist()
    assert sorted(rows["mean_iou"][found.best.positions]) == by_score["mean_iou"].tolist()[-5:]
    entropies = rows["mean_entropy"].dropna().sort_values(ascending=False, kind="stable")
    assert found.uncertain.positions.tolist() == entropies.index[:5].tolist()
    assert found.images == 38 and found.seconds == pytest.approx(19.0)


def test_random_images_are_predicted_ones_and_the_seed_s(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, 40, failed=(0, 17)))
    chosen, again, other = (survey(run, 5, seed).random.positions.tolist() for seed in (1, 1, 2))
    assert chosen == again != other
    assert len(set(chosen)) == 5 and not {0, 17} & set(chosen)


def test_each_row_is_as_likely_to_be_drawn_as_any_other() -> None:
    generator = np.random.default_rng(0)
    times = np.zeros(50)
    for _ in range(2000):
        top = Top(5)
        for start in range(0, 50, 7):
            positions = np.arange(start, min(start + 7, 50))
            top.add(generator.random(len(positions)), positions)
        times[top.positions] += 1
    assert abs(times - 200).max() < 5 * np.sqrt(200)


@pytest.mark.parametrize("size", [0, 1, 3, 500, 10_000])
def test_the_greatest_of_many_files_are_those_of_all_rows(size: int) -> None:
    keys = np.random.default_rng(0).integers(0, 300, 20_000).astype(float)
    keys[::7] = np.nan
    top = Top(size)
    positions = np.arange(len(keys))
    for start in range(0, len(keys), 64):
        top.add(keys[start : start + 64], positions[start : start + 64], positions[start : start + 64] * 2.0)
        assert top._rows <= max(size, 4096)
    expected = [each for each in np.argsort(-keys, kind="stable") if keys[each] == keys[each]][:size]
    assert top.positions.tolist() == expected and (top.values == 2 * top.positions).all()


def test_the_distribution_counts_every_value_once() -> None:
    values = np.random.default_rng(0).beta(4, 2, 5001)
    counted = Distribution()
    for part in np.split(values, [100, 2000]):
        counted.add(part)
    counted.add(np.array([np.nan]))
    expected, _ = np.histogram(values, 20, (0, 1))
    assert [bar.count for bar in counted.bars()] == expected.tolist()
    assert counted.median() == pytest.approx(np.median(values), abs=1e-4)
    ends = Distribution()
    ends.add(np.array([0.0, 1.0]))
    assert [ends.bars()[0].count, ends.bars()[-1].count] == [1, 1]
    assert Distribution().median() is None


def test_failures_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    found = survey(Run(write_run(tmp_path, 30, failed=tuple(range(4, 25)))), 3)
    (reason,) = found.reasons.values()
    assert (reason.stage, reason.kind, reason.count) == ("decode", "DecodeError", 21)
    assert [position for position, _ in reason.examples] == list(range(4, 4 + EXAMPLES))


def test_one_file_is_in_memory_at_a_time_and_never_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(write_run(tmp_path, 30))
    reads = watch_reads(monkeypatch)
    survey(run, 3)
    # The loop still refers to the current file while it asks for the next one.
    assert len(reads.files) == 10 and max(reads.held) <= 1
    assert not {"all", "mask", "classes"} & set().union(*reads.files) and not reads.rows
