"""Tests that DuckDB, pandas and Pillow read the same tables and masks as the reader."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data.storage import RetryPolicy, Storage
from pipeline.errors import ConfigError, IncompleteRun
from pipeline.results.schema import schemas
from pipeline.results.schema.derived import ClassSums, class_scores_table, image_scores_table
from pipeline.results.schema.encoding import parquet_bytes, part_order, read_parquet
from pipeline.results.tables import Run
from tests.results.run_builders import CLASSES, PALETTE, RUN_ID, scene, write_run


@pytest.fixture
def output(tmp_path: Path) -> str:
    return write_run(tmp_path)


def test_two_lines_give_frames_and_masks(output: str) -> None:
    run = Run(output)
    scores = run.class_scores()
    mask = run.mask(run.manifest()["image_uri"][0])
    assert list(scores["class_name"]) == list(CLASSES)
    assert np.array_equal(mask, scene(0)[2])
    assert len(run.predictions()) == 7 and len(run.errors()) == 2 and len(run.image_scores()) == 5 * len(CLASSES)


def test_masks_come_in_order_and_without_failures(output: str) -> None:
    found = list(Run(output).masks())
    assert [Path(uri).stem for uri, _ in found] == ["0000", "0001", "0003", "0004", "0006"]
    assert all(np.array_equal(mask, scene(int(Path(uri).stem))[2]) for uri, mask in found)


def test_parts_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Limit: from part 1,000,000 on, names as text sort in another order than the manifest."""
    plain = write_run(tmp_path, name="plain")
    output = write_run(tmp_path, first_shard=999_999)
    names = [entry["path"] for entry in Run(output).success["files"] if entry["path"].startswith("predictions/")]
    assert ["part-1000000" in name for name in names] == [True, False, False], "listed as text, as version 0.1.0 did"
    run = Run(output)
    uris = list(run.manifest()["image_uri"])
    assert uris == sorted(uris) == list(run.predictions()["image_uri"])
    assert run.image_scores().equals(Run(plain).image_scores())
    assert [uri for uri, _ in run.masks()] == [uri for uri, _ in Run(plain).masks()]
    for index in (0, 3, 6):
        assert np.array_equal(run.mask(uris[index]), scene(index)[2])
        assert run.row("predictions/", index, ["image_uri"]) == run.row("manifest/", index, ["image_uri"])


def test_fewer_than_a_million_parts_sort_as_their_names_do() -> None:
    """Limit: the list of committed files of such runs keeps its bytes."""
    parts = [f"predictions/part-{number:06d}-ab.parquet" for number in (99, 0, 999_999, 7)]
    paths = ["errors.parquet", *parts, "changes/part-000000.parquet", "class_scores.parquet"]
    assert sorted(paths, key=part_order) == sorted(paths)
    beyond = [f"s3://b/part-9/out/manifest/part-{number:06d}.parquet" for number in (1_000_000, 10_000_000, 999_999)]
    assert sorted(beyond, key=part_order) == [beyond[2], *beyond[:2]]


def test_a_failed_and_an_unknown_image_have_no_mask(output: str) -> None:
    run = Run(output)
    with pytest.raises(KeyError, match="errors"):
        run.mask(run.manifest()["image_uri"][2])
    with pytest.raises(KeyError, match="not in the manifest"):
        run.mask("s3://elsewhere/x.png")


class Unsteady(Storage):
    """Storage whose every other opening of a file fails.

    Attributes:
        opened: Paths that were opened, without the failures.
    """

    def __init__(self) -> None:
        super().__init__(RetryPolicy(attempts=2, first_delay=0.0))
        self.opened: list[str] = []
        self._fails = False

    def filesystem(self, uri: str) -> tuple[Any, str]:
        filesystem, path = super().filesystem(uri)
        return SimpleNamespace(
            open=partial(self._open, filesystem), cat_file=filesystem.cat_file, protocol="file"
        ), path

    def _open(self, filesystem: Any, path: str, mode: str) -> Any:
        self._fails = not self._fails
        if self._fails:
            raise ConnectionResetError(path)
        self.opened.append(Path(path).parent.name)
        return filesystem.open(path, mode)


def test_masks_are_read_again_after_failures_and_the_manifest_once(output: str) -> None:
    run = Run(output, Unsteady())
    for index in (6, 0, 1, 6, 3, 0):
        assert np.array_equal(run.mask(f"{Path(output).parent}/in/{index:04d}.png"), scene(index)[2])
    assert run.storage.opened.count("predictions") == 6
    # Three files, of which the last one read stays in memory.
    assert run.storage.opened.count("manifest") <= 7
    assert len(list(run.masks())) == 5


def test_duckdb_computes_the_same_scores_from_the_parts(output: str) -> None:
    query = f"""
        SELECT c.class_name,
               sum(c.intersection) / (sum(c.predicted_pixels) + sum(c.target_pixels) - sum(c.intersection))
        FROM (SELECT unnest(classes) AS c FROM '{output}/predictions/*.parquet' WHERE status = 'ok')
        GROUP BY ALL ORDER BY 1"""
    ours = Run(output).class_scores().sort_values("class_name")
    rows = duckdb.sql(query).fetchall()
    assert [name for name, _ in rows] == list(ours["class_name"])
    assert [value for _, value in rows] == pytest.approx(ours["iou"].tolist())


def test_pandas_and_duckdb_read_every_table_as_documented(output: str) -> None:
    tables = {
        "predictions": schemas.PREDICTIONS,
        "image_scores": schemas.IMAGE_SCORES,
        "class_scores.parquet": schemas.CLASS_SCORES,
        "confusion.parquet": schemas.CONFUSION,
        "errors.parquet": schemas.ERRORS,
    }
    for name, schema in tables.items():
        path = f"{output}/{name}"
        assert list(pd.read_parquet(path).columns) == schema.names
        pattern = path if name.endswith(".parquet") else f"{path}/*.parquet"
        assert duckdb.sql(f"SELECT * FROM '{pattern}'").columns == schema.names
        first = next(iter(sorted(Path(path).glob("*.parquet")))) if Path(path).is_dir() else Path(path)
        stored = pq.read_schema(first)
        assert stored.equals(schema)
        assert all(field.metadata[b"description"] for field in stored)


def test_a_mask_is_a_palette_png_whose_values_are_class_ids(output: str) -> None:
    ((data,),) = duckdb.sql(
        f"SELECT mask.bytes FROM '{output}/predictions/*.parquet' WHERE status = 'ok' LIMIT 1"
    ).fetchall()
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), scene(0)[2])
    assert tuple(picture.getpalette()[: 3 * len(PALETTE)]) == tuple(value for rgb in PALETTE for value in rgb)


def test_undefined_is_null_everywhere(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, labels=False))
    scores = run.class_scores()
    undefined = ["target_pixels", "intersection", "union", "iou", "dice", "precision", "recall"]
    assert scores[undefined].isna().all().all()
    assert (scores["predicted_pixels"] > 0).any()
    assert run.image_scores()[undefined[:5]].isna().all().all()
    assert run.predictions()[["pixel_accuracy", "mean_iou"]].isna().all().all()
    assert run.confusion().isna().all().all()
    assert run.success["mean_iou"] is None


def test_runs_of_some_labels_score_the_labelled_images_alone(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, labels="some", failed=()))
    rows = run.image_scores().dropna(subset=["target_pixels"])
    sums = rows.groupby("class_id")[["predicted_pixels", "target_pixels", "intersection"]].sum()
    scores = run.class_scores().set_index("class_id")
    assert (scores[sums.columns] == sums).all().all()


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_sums_do_not_depend_on_the_parts(output: str, cut: int) -> None:
    table = pa.concat_tables(pq.read_table(path) for path in sorted(Path(output, "predictions").iterdir()))
    sums = ClassSums(len(CLASSES))
    for start in range(0, table.num_rows, cut):
        sums.add(image_scores_table(table.slice(start, cut)))
    expected = pq.read_table(f"{output}/class_scores.parquet")
    assert class_scores_table(RUN_ID, CLASSES, sums).equals(expected)


def test_the_same_table_gives_the_same_bytes(output: str) -> None:
    table = pq.read_table(f"{output}/class_scores.parquet")
    assert parquet_bytes(table) == parquet_bytes(table)


def test_pngs_are_stored_as_they_are_and_all_else_is_compressed(output: str) -> None:
    (path, *_) = sorted(Path(output, "predictions").iterdir())
    group = pq.read_metadata(path).row_group(0)
    codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
    assert codecs["mask.bytes"] == "UNCOMPRESSED"
    assert set(codecs.values()) == {"UNCOMPRESSED", "ZSTD"} and codecs["image_uri"] == "ZSTD"


def test_columns_and_row_groups_can_be_read_alone(output: str) -> None:
    (path, *_) = sorted(Path(output, "predictions").iterdir())
    table = read_parquet(Storage(), str(path), ["image_uri"], row_group=1)
    assert table.column_names == ["image_uri"] and table.num_rows == 1


def test_an_uncommitted_run_is_refused(output: str) -> None:
    Path(output, "_SUCCESS.json").unlink()
    with pytest.raises(IncompleteRun, match="not committed"):
        Run(output)


def test_another_table_format_is_refused(output: str) -> None:
    path = Path(output, "_SUCCESS.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ConfigError, match="99"):
        Run(output)
