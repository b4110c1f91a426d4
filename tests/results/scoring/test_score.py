"""Tests of the scoring job's tables, against masks, confidence maps and labels read again, and of refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import binary_calibration_error

from jobs import verify as verify_job
from jobs.score import main
from pipeline.data.labels import decode_label, decode_mask
from pipeline.data.storage import Storage
from pipeline.errors import AccessDenied
from pipeline.results.scoring.measures import boundary_counts
from pipeline.results.scoring.score import score_run
from pipeline.results.statistics.bootstrap import class_ious, interval, mean_ious, resampled_sums, score_counts
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from tests.results.run_builders import write_run
from tests.segmentation.support import CLASSES, config_of, run_here, write_inputs

SCORES = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_boundary_iou")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a scored run of eight images with confidence maps; one of them is not an image."""
    inputs = write_inputs(str(tmp_path_factory.mktemp("scored")), bad=(4,))
    config = config_of(inputs, confidence_maps=True, max_error_fraction=0.5)
    run_here(config)
    scoring = score_run(config.output)
    assert scoring.scored == 7 and scoring.left_out.count == 0 and scoring.calibrated
    return Run(config.output)


def pixels(run: Run) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return URI, label, mask and confidence of each image."""
    rows = run.predictions(["image_uri", "status", "mask", "confidence"]).merge(run.manifest(), on="image_uri")
    return [
        (
            row.image_uri,
            decode_label(Path(row.label_uri).read_bytes(), len(CLASSES)),
            decode_mask(row.mask["bytes"]),
            decode_mask(row.confidence["bytes"]),
        )
        for row in rows.itertuples()
        if row.status == "ok"
    ]


def query(run: Run, path: str, columns: str = "*", where: str = "true") -> list[tuple]:
    return duckdb.sql(f"SELECT {columns} FROM '{run.output}/scores/{path}' WHERE {where}").fetchall()


def frame(run: Run, path: str) -> pd.DataFrame:
    return duckdb.sql(f"SELECT * FROM '{run.output}/scores/{path}'").df()


def test_scores_of_the_run_are_those_of_all_its_pixels(run: Run) -> None:
    found = dict(query(run, "run.parquet", "score, value"))
    assert tuple(found) == (*SCORES, "expected_calibration_error")
    target, mask, confidence = (np.concatenate([row[n].ravel() for row in pixels(run)]) for n in (1, 2, 3))
    valid = target != 255
    assert found["pixel_accuracy"] == pytest.approx((target == mask)[valid].mean())
    assert found["mean_iou"] == pytest.approx(run.success["mean_iou"])
    preds = torch.from_numpy((confidence[valid] / 255 + 1e-6).clip(max=1 - 1e-6))
    error = binary_calibration_error(preds, torch.from_numpy((mask == target)[valid]).long(), n_bins=15)
    assert found["expected_calibration_error"] == pytest.approx(float(error), abs=1e-5)
    counts = sum(boundary_counts(label, predicted, len(CLASSES)) for _, label, predicted, _ in pixels(run))
    of_mask, of_label, both = counts
    assert found["mean_boundary_iou"] == pytest.approx(np.mean(both / (of_mask + of_label - both)))


def test_intervals_are_those_of_the_report(run: Run) -> None:
    """Both use the same resamples, although the sums of this job have more columns."""
    counts = [score_counts(part, len(CLASSES)) for part in run.tables("image_scores/", None)]
    sums = resampled_sums(counts)
    (found,) = query(run, "run.parquet", "low, high", "score = 'mean_iou'")
    assert found == pytest.approx(interval(mean_ious(sums)))
    rows = query(run, "classes.parquet", "class_id, value, low, high", "score = 'iou'")
    stored = run.class_scores()["iou"]
    for class_id, value, low, high in rows:
        assert value == pytest.approx(stored[class_id])
        assert (low, high) == pytest.approx(interval(class_ious(sums)[:, class_id]))


def test_scores_of_images(run: Run) -> None:
    rows = frame(run, "images/*.parquet").set_index("image_uri")
    classes = frame(run, "image_classes/*.parquet")
    predictions = run.predictions().set_index("image_uri")
    assert len(rows) == 7 and len(classes) == 7 * len(CLASSES)
    for uri, target, mask, _ in pixels(run):
        row = rows.loc[uri]
        assert row.mean_iou == pytest.approx(predictions.loc[uri].mean_iou)
        assert row.pixels == (target != 255).sum() and row.boundary_width == 1
        own = classes[classes.image_uri == uri]
        assert row.mean_boundary_iou == pytest.approx(own.boundary_iou.mean())
        assert row.mean_dice == pytest.approx(own.dice.mean())
        for each in own.itertuples():
            found = (mask == each.class_id) & (target != 255)
            right = (found & (target == each.class_id)).sum()
            assert each.precision == pytest.approx(right / found.sum() if found.any() else np.nan, nan_ok=True)


def test_the_reliability_curve_holds_every_pixel(run: Run) -> None:
    total = sum((target != 255).sum() for _, target, _, _ in pixels(run))
    for which in ("class_id IS NULL", "class_id IS NOT NULL"):
        assert query(run, "reliability.parquet", "sum(pixels)", which) == [(total,)]
    error = "sum(abs(accuracy - mean_confidence) * pixels) / sum(pixels)"
    ((found,),) = query(run, "reliability.parquet", error, "class_id IS NULL")
    assert [(pytest.approx(found),)] == query(run, "run.parquet", "value", "score LIKE '%calibration%'")


def test_the_documented_queries_answer(run: Run) -> None:
    document = (Path(__file__).resolve().parents[3] / "docs" / "scores.md").read_text()
    outlines, curve = re.findall(r"^```sql\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    rows = duckdb.sql(outlines.replace("demo-output", run.output)).fetchall()
    assert sorted(name for name, _, _ in rows) == sorted(CLASSES) and all(iou > 0 for _, iou, _ in rows)
    assert len(duckdb.sql(curve.replace("demo-output", run.output)).fetchall()) == 15


def test_the_run_stays_sound(run: Run) -> None:
    assert verify(run.output).ok


def test_labels_that_changed_or_are_gone_are_left_out(tmp_path: Path) -> None:
    output = write_run(tmp_path, failed=())
    (tmp_path / "labels/0001.png").unlink()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "labels/0003.png")
    scoring = score_run(output)
    assert scoring.scored == 5 and scoring.left_out.count == 2 and not scoring.calibrated
    assert [Path(uri).name for uri in scoring.left_out.examples] == ["0001.png", "0003.png"]
    assert "was changed" in scoring.text() and "without --confidence-maps" in scoring.text()
    assert query(Run(output), "reliability.parquet") == []


@pytest.mark.parametrize("job", [main, verify_job.main])
def test_storage_that_refuses_labels_is_one_sentence_and_no_lost_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: Callable[[list[str]], int]
) -> None:
    output = write_run(tmp_path)
    read = Storage.read

    def refuse(storage: Storage, uri: str, **options: Any) -> bytes:
        if "/labels/" in uri:
            raise AccessDenied(f"cannot read {uri}: access denied; check the credentials")
        return read(storage, uri, **options)

    monkeypatch.setattr(Storage, "read", refuse)
    assert job([output]) == 3
    told = capsys.readouterr()
    assert told.err.count("access denied") == 1 and "left out" not in told.out
    assert not (Path(output) / "scores").exists()


def test_a_run_without_labels_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([write_run(tmp_path, labels=False)]) == 0
    assert "no image was scored: the run has no labels" in capsys.readouterr().out


def test_without_a_run_the_exit_code_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 3
    assert "is not committed" in capsys.readouterr().err
