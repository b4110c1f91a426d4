"""Tests that verification finds every kind of damage, and passes a sound run."""

from __future__ import annotations

import json
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic_run import write_made_up_run
from jobs import verify as job
from pipeline.data.images import LARGEST_MAX_PIXELS
from pipeline.results.file_checks import FileChecks
from pipeline.results.manifest_check import ManifestCheck
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.sources import Sources
from pipeline.results.tables import Run
from pipeline.results.verify import Verdict, verify
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
    "order": ("predictions", lambda rows: rows.reverse(), "predictions is not in the order"),
    "unknown image": ("predictions", lambda rows: rows[0].update(image_uri="x"), "x is in predictions but not"),
    "order of the manifest": ("manifest", lambda rows: rows.reverse(), "must be sorted"),
    "class id": ("predictions", lambda rows: rows[0]["classes"][0].update(class_id=9), "classes of"),
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


@pytest.mark.parametrize("name", ["class_scores.parquet", "confusion.parquet", "errors.parquet", "image_scores/"])
def test_an_omitted_table_is_found(tmp_path: Path, name: str) -> None:
    output = write_run(tmp_path)
    path = Path(output) / "_SUCCESS.json"
    success = json.loads(path.read_text())
    success["files"] = [entry for entry in success["files"] if not entry["path"].startswith(name)]
    path.write_text(json.dumps(success))
    assert "is not listed in _SUCCESS.json, which must list it" in verify(output).text()


COLUMNS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "missing": (lambda table: table.drop_columns([table.column_names[0]]), "lacks the columns"),
    "type": (lambda table: table.set_column(0, table.column_names[0], pa.nulls(len(table))), "in another type"),
    "null": (lambda table: table.set_column(0, table.column_names[0], pa.nulls(len(table), pa.string())), "has nulls"),
}


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("predictions", "missing"),
        ("predictions", "null"),
        ("image_scores", "missing"),
        ("image_scores", "type"),
        ("manifest", "missing"),
        ("errors.parquet", "missing"),
        ("confusion.parquet", "missing"),
    ],
)
def test_a_damaged_column_is_found(tmp_path: Path, where: str, name: str) -> None:
    output = write_run(tmp_path, 3)
    path = Path(output) / where if where.endswith(".parquet") else first(output, where)
    change, sentence = COLUMNS[name]
    path.write_bytes(parquet_bytes(change(pq.read_table(path))))
    relist(output)
    assert sentence in verify(output).text()


def test_a_file_that_is_not_parquet_is_found(tmp_path: Path) -> None:
    output = write_run(tmp_path, 1)
    first(output, "image_scores").write_bytes(b"PAR1")
    assert "cannot be decoded as Parquet" in verify(output).text()


@pytest.mark.parametrize(
    ("name", "column", "sentence"),
    [
        ("class_scores.parquet", "predicted_pixels", "class_scores does not match"),
        ("confusion.parquet", "pixels", "confusion does not match the sum of the intersection pixels"),
        ("confusion.parquet", "predicted_name", "confusion does not match"),
    ],
)
def test_damage_of_totals_is_found_without_all_labels(tmp_path: Path, name: str, column: str, sentence: str) -> None:
    output = write_run(tmp_path)
    (tmp_path / "labels/0000.png").unlink()
    edit(Path(output) / name, lambda rows: rows[0].update({column: rows[1][column]}))
    relist(output)
    assert sentence in verify(output).text()


@pytest.mark.parametrize("labelled", [True, False])
def test_the_synthetic_runs_of_benchmarks_pass(tmp_path: Path, labelled: bool) -> None:
    write_made_up_run(tmp_path, 70, side=8, classes=2, labelled=labelled)
    verdict = verify(str(tmp_path))
    assert verdict.ok and verdict.images == 70, verdict.text()


def test_few_tables_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = weakref.WeakValueDictionary[int, pa.Table]()
    held: list[int] = []
    read = FileChecks.tables

    def tables(files: FileChecks, prefix: str) -> Iterator[pa.Table]:
        for table in read(files, prefix):
            held.append(len(alive))
            alive[len(held)] = table
            yield table

    monkeypatch.setattr(FileChecks, "tables", tables)
    output = write_run(tmp_path, 12, failed=(), shard_images=1)
    assert verify(output).ok and len(held) > 36 and max(held) <= 6


def test_names_of_images_are_not_kept_in_memory() -> None:
    """Limit: every image is a problem, and only the first 20 are kept."""
    names = [f"{number:060d}" for number in range(5_000)]
    manifest = (
        pa.table({"image_uri": names[start : start + 100], "label_uri": [None] * 100}) for start in range(0, 5_000, 100)
    )
    verdict = Verdict()
    tracemalloc.start()
    images = ManifestCheck(manifest, verdict.add)
    for name in names[::-1]:
        images.count(name)
        images.count(f"unknown {name}")
    images.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000, "the names would take 500 kB"
    assert verdict.found == 5_000 and len(verdict.problems) == 20
    assert verdict.text().endswith("… and 4980 more")


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
