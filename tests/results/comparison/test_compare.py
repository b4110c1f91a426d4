"""Tests of comparing two runs, against masks and labels read again and an explicit bootstrap, and of refusals."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pytest

from jobs.compare import main
from pipeline.data.labels import decode_label
from pipeline.errors import ConfigError, IncompleteRun
from pipeline.results.comparison.compare import Comparison, compare_runs
from pipeline.results.comparison.tally import HIGHER, LOWER
from pipeline.results.comparison.write import write_comparison
from pipeline.results.statistics.scores import iou_per_class
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from tests.results.browser import EXECUTABLE, Browser
from tests.results.run_builders import CLASSES, IGNORE, write_run

OTHER = "fedcba9876543210"
ALL = len(CLASSES)


def worse(index: int, mask: np.ndarray) -> np.ndarray:
    """Return a worse mask for two of three images, and a better one for image 4."""
    changed = mask.copy()
    if index % 3 != 2:
        changed[:9] = 2
    return np.where(changed == 4, 3, changed).astype(np.uint8) if index % 2 else changed


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Write two runs; A lacks image 2, and B lacks image 5."""
    folder = tmp_path_factory.mktemp("compared")
    first = write_run(folder, 14, failed=(2,))
    second = write_run(folder, 14, failed=(5,), name="second", run_id=OTHER, changed=worse)
    return Run(first), Run(second)


@pytest.fixture(scope="module")
def comparison(runs: tuple[Run, Run]) -> Comparison:
    return compare_runs(runs[0].output, runs[1].output)


def pixels(runs: tuple[Run, Run]) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return URI, mask of A, mask of B and label of every image that both runs have."""
    first, second = (dict(run.masks()) for run in runs)
    labels = runs[0].manifest().set_index("image_uri")["label_uri"]
    return [
        (uri, first[uri], second[uri], decode_label(Path(labels[uri]).read_bytes(), ALL))
        for uri in first
        if uri in second
    ]


def counts(mask: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return intersections and unions, (2, C)."""
    valid = label != IGNORE
    sums = [(((mask == c) & (label == c)).sum(), (((mask == c) | (label == c)) & valid).sum()) for c in range(ALL)]
    return np.array(sums, float).T


def test_agreement_is_that_of_the_masks(runs: tuple[Run, Run], comparison: Comparison) -> None:
    expected = np.zeros((ALL, ALL), int)
    for _, first, second, _ in pixels(runs):
        np.add.at(expected, (first, second), 1)
    assert np.array_equal(comparison.tally.agreement, expected)
    assert comparison.agreement == pytest.approx(expected.trace() / expected.sum())
    assert [change.agreement for change in comparison.classes] == iou_per_class(expected)


def test_intervals_are_those_of_the_same_images_drawn_for_both(runs: tuple[Run, Run], comparison: Comparison) -> None:
    per_image = np.stack([[counts(mask, label) for mask in masks] for _, *masks, label in pixels(runs)])
    weights = np.random.default_rng(0).poisson(1.0, (1000, len(per_image)))
    resampled = np.einsum("rn,nakc->rakc", weights, per_image)
    with np.errstate(invalid="ignore"):
        ious = resampled[:, :, 0] / resampled[:, :, 1]
        total = per_image.sum(axis=0)
        expected = total[:, 0] / total[:, 1]
    for change in comparison.classes:
        of_class = ious[:, :, change.class_id]
        assert (change.score.a, change.score.b) == pytest.approx(tuple(expected[:, change.class_id]))
        assert change.score.interval == pytest.approx(tuple(np.nanquantile(np.diff(of_class)[:, 0], [0.025, 0.975])))
    means = np.nanmean(ious, axis=2)
    assert comparison.mean.score.interval == pytest.approx(tuple(np.quantile(np.diff(means)[:, 0], [0.025, 0.975])))
    assert comparison.mean.score.verdict == LOWER


def test_verdicts_turn_with_the_runs(runs: tuple[Run, Run], comparison: Comparison) -> None:
    turned = compare_runs(runs[1].output, runs[0].output)
    assert turned.mean.score.verdict == HIGHER
    assert turned.mean.score.difference == pytest.approx(-comparison.mean.score.difference)
    assert np.array_equal(turned.tally.agreement, comparison.tally.agreement.T)


def test_a_run_does_not_differ_from_itself(runs: tuple[Run, Run]) -> None:
    same = compare_runs(runs[0].output, runs[0].output)
    assert same.agreement == 1.0
    assert all(change.score.interval == (0.0, 0.0) for change in (*same.classes, same.mean))
    assert same.tally.changed.items() == [] and same.mean.score.verdict == "no difference shown"


def test_the_tables_hold_every_image_and_class(runs: tuple[Run, Run], comparison: Comparison, tmp_path: Path) -> None:
    compared = compare_runs(runs[0].output, runs[1].output)
    folder = Path(write_comparison(compared, str(tmp_path))).parent
    query = f"SELECT * FROM '{folder}/%s.parquet'"
    images = duckdb.sql(query % "changed_images").df().set_index("image_uri")
    assert len(images) == 12 == compared.tally.compared
    scores = [run.predictions().set_index("image_uri")["mean_iou"] for run in runs]
    for uri, first, second, _ in pixels(runs):
        row = images.loc[uri]
        assert (row.pixels, row.changed_pixels) == (first.size, (first != second).sum())
        assert row.mean_iou_difference == pytest.approx(scores[1][uri] - scores[0][uri])
    only = duckdb.sql(query % "only_one").df()
    assert [(Path(row.image_uri).stem, row.segmented_in) for row in only.itertuples()] == [("0002", "b"), ("0005", "a")]
    assert set(only["error_type"]) == {"DecodeError"}
    classes = duckdb.sql(query % "comparison").df()
    assert classes["class_name"].tolist() == [*CLASSES, "mean"] and classes["class_id"].isna().tolist() == [
        False
    ] * 5 + [True]
    assert classes["difference"].tolist()[-1] == pytest.approx(comparison.mean.score.difference)
    assert duckdb.sql(f"SELECT sum(pixels) FROM '{folder}/agreement.parquet'").fetchall() == [(12 * 48 * 64,)]


def test_the_images_that_changed_most_come_first(runs: tuple[Run, Run], comparison: Comparison) -> None:
    shares = sorted((float((first != second).mean()) for _, first, second, _ in pixels(runs)), reverse=True)
    assert [change.share for change in comparison.tally.changed.items()] == pytest.approx(shares[:4])
    assert all(change.gain < 0 for change in comparison.tally.lost.items())


def test_the_job_says_who_is_better_and_leaves_both_runs_sound(
    runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([runs[0].output, runs[1].output]) == 0
    out = capsys.readouterr().out
    assert "12 compared, 12 of them with a label" in out and "B is lower (few images" in out
    assert Path(runs[1].output, "comparison", runs[0].success["run_id"], "index.html").exists()
    assert verify(runs[0].output).ok and verify(runs[1].output).ok


def test_other_images_are_refused_by_name_unless_the_overlap_is_asked_for(tmp_path: Path) -> None:
    first = write_run(tmp_path, 6, failed=())
    second = write_run(tmp_path, 4, failed=(), name="second", run_id=OTHER)
    with pytest.raises(ConfigError, match=r"2 only in A \(.*0004.png, .*0005.png\).*--overlap to compare the 4 images"):
        compare_runs(first, second)
    assert compare_runs(first, second, overlap=True).tally.compared == 4


def test_without_a_common_image_there_is_nothing_to_compare(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one", 3, failed=())
    second = write_run(tmp_path / "two", 3, failed=(), run_id=OTHER)
    with pytest.raises(ConfigError, match="no image in the same version"):
        compare_runs(first, second, overlap=True)


def test_other_classes_are_refused(tmp_path: Path, runs: tuple[Run, Run]) -> None:
    second = Path(write_run(tmp_path, 3))
    success = json.loads((second / "_SUCCESS.json").read_text())
    (second / "_SUCCESS.json").write_text(json.dumps(success | {"classes": ["sky", "house", *CLASSES[2:]]}))
    with pytest.raises(ConfigError, match="class 1 is 'building' in A and 'house' in B"):
        compare_runs(runs[0].output, str(second))


def test_without_labels_only_agreement_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path, 4, labels=False)
    second = write_run(tmp_path, 4, labels=False, name="second", run_id=OTHER, changed=worse)
    assert main([first, second]) == 0
    out = capsys.readouterr().out
    assert "unknown: no compared image has the same label" in out and "% of the pixels have the same class" in out


def test_a_run_that_is_not_committed_is_refused(
    runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(IncompleteRun):
        compare_runs(runs[0].output, str(tmp_path))
    assert main([runs[0].output, str(tmp_path)]) == 3 and "not committed" in capsys.readouterr().err


@pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium here: apt-get install chromium")
def test_the_page_fits_and_asks_for_nothing(comparison: Comparison, runs: tuple[Run, Run], tmp_path: Path) -> None:
    page = Path(write_comparison(compare_runs(runs[0].output, runs[1].output), str(tmp_path / "page"))).as_uri()
    with Browser(tmp_path / "profile") as browser:
        for width in (390, 1280):
            browser.open(page, width)
            scrolled = browser.evaluate("document.documentElement.scrollWidth")
            assert scrolled == width and browser.requests == [] and browser.complaints == []
            assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert browser.evaluate("document.querySelectorAll('figure').length") >= 8


def test_runs_of_a_million_shards_are_compared_image_by_image(tmp_path: Path) -> None:
    """Limit: names of parts as text sort in another order than the manifest."""
    many = write_run(tmp_path, name="many", first_shard=999_999)
    few = write_run(tmp_path, name="few", run_id=OTHER)
    assert compare_runs(few, many).agreement == 1
