"""Tests that verification finds every kind of damage, and passes a sound run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import verify as job
from pipeline.data.images import LARGEST_MAX_PIXELS
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.sources import Sources
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from tests.results.run_builders import relist, write_run
from tests.shared import png_header

Rows = list[dict[str, Any]]


def first(output: str, folder: str) -> Path:
    return sorted((Path(output) / folder).glob("*.parquet"))[0]


def edit(path: Path, change: Callable[[Rows], Any]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    path.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=table.schema)))


@pytest.mark.parametrize("options", [{}, {"labels": False}, {"labels": "some"}, {"images": 0}, {"images": 1}])
def test_a_sound_run_passes(tmp_path: Path, options: dict[str, Any]) -> None:
    verdict = verify(write_run(tmp_path, **options))
    assert verdict.ok, verdict.text()


def test_a_run_with_a_million_shards_passes(tmp_path: Path) -> None:
    """Limit: names of parts as text sort in another order than the manifest."""
    verdict = verify(write_run(tmp_path, first_shard=999_999))
    assert verdict.ok and verdict.images == 5, verdict.text()


def test_labels_that_are_gone_are_counted_not_failed(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    (tmp_path / "labels/0000.png").unlink()
    verdict = verify(output)
    assert verdict.ok and verdict.labels_unread == 1


def test_inputs_of_every_size_that_max_pixels_allows_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: files that end after their header are refused as truncated, not for their size."""
    sources = Sources(Run(write_run(tmp_path)))
    path = tmp_path / "large.png"
    path.write_bytes(png_header(LARGEST_MAX_PIXELS // 10, 10))
    assert sources.image(str(path)) is None
    assert sources.read_label(str(path)) is None
    assert [record.getMessage().count("truncated") for record in caplog.records] == [1, 1]


DAMAGE: dict[str, tuple[str, Callable[[Rows], Any], str]] = {
    "row missing": ("predictions", lambda rows: rows.pop(), "appears 0 times"),
    "row twice": ("predictions", lambda rows: rows.append(rows[0]), "appears 2 times"),
    "order": ("predictions", lambda rows: rows.reverse(), "order"),
    "foreign run": ("predictions", lambda rows: rows[0].update(run_id="other"), "belongs to run"),
    "status": ("predictions", lambda rows: rows[0].update(status="fine"), "must be ok or error"),
    "ok and error": ("predictions", lambda rows: rows[0].update(error_type="E"), "is not null"),
    "no mask": ("predictions", lambda rows: rows[0].update(mask=None), "mask is null"),
    "not a png": ("predictions", lambda rows: rows[0]["mask"].update(bytes=b"x"), "cannot be decoded"),
    "height": ("predictions", lambda rows: rows[0].update(height=9), "its row says"),
    "other mask": ("predictions", lambda rows: rows[0].update(mask=rows[1]["mask"]), "classes of"),
    "mean iou": ("predictions", lambda rows: rows[0].update(mean_iou=0.5), "mean_iou of"),
    "image score": ("image_scores", lambda rows: rows[0].update(iou=0.1), "image_scores does not match"),
    "class score": ("class_scores.parquet", lambda rows: rows[0].update(iou=0.1), "class_scores"),
    "confusion": ("confusion.parquet", lambda rows: rows[0].update(pixels=1), "confusion"),
    "errors": ("errors.parquet", lambda rows: rows.pop(), "errors does not match"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_even_when_the_digests_agree(tmp_path: Path, name: str) -> None:
    output = write_run(tmp_path)
    where, change, sentence = DAMAGE[name]
    edit(Path(output) / where if where.endswith(".parquet") else first(output, where), change)
    relist(output)
    assert sentence in verify(output).text()


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    edit(Path(output) / "confusion.parquet", lambda rows: rows[0].update(pixels=1))
    assert "differs from the committed file" in verify(output).text()


def test_a_lost_file_is_found(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    first(output, "predictions").unlink()
    assert "cannot be read" in verify(output).text()


def test_an_unlisted_part_is_found(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    part = first(output, "predictions")
    part.with_name("part-999999-zombie.parquet").write_bytes(part.read_bytes())
    assert "is not listed" in verify(output).text()


@pytest.mark.parametrize("name", ["images", "errors", "mean_iou", "pixel_accuracy"])
def test_a_wrong_summary_is_found(tmp_path: Path, name: str) -> None:
    output = write_run(tmp_path)
    path = Path(output) / "_SUCCESS.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 99}))
    assert f"says {name} = 99" in verify(output).text()


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path)
    assert job.main([output]) == 0
    first(output, "predictions").unlink()
    assert job.main([output]) == 1
    (Path(output) / "_SUCCESS.json").unlink()
    assert job.main([output]) > 1
    assert "committed" in capsys.readouterr().err
    assert job.main([]) == 2
