"""Tests of a submission without Ray: commit, resume, and tables, against counts of the masks."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.prediction.dense_prediction import predict
from pipeline.data.labels import decode_mask
from pipeline.data.storage import join
from pipeline.errors import IncompleteRun, RunConflict
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.segmentation.runs import commit as commit_module
from pipeline.segmentation.runs.plan import Plan, make_plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import part_bytes, part_name, part_uri
from tests.segmentation.support import (
    CLASSES,
    Inputs,
    config_of,
    label,
    narrow_network,
    picture,
    png,
    run_shards_here,
    write_inputs,
)
from tests.shared import STORAGE


def submit(inputs: Inputs, run_shards=run_shards_here, **changes: object) -> dict[str, object]:  # type: ignore[no-untyped-def]
    return segment_bucket(config_of(inputs, **changes), lambda config: None, run_shards, STORAGE)


def test_class_iou_is_that_of_the_written_masks(bucket: str) -> None:
    inputs = write_inputs(bucket, 8, bad=(4,))
    success = submit(inputs, max_error_fraction=0.2)
    run = Run(join(bucket, "out"))
    inter = np.zeros(len(CLASSES))
    union = np.zeros(len(CLASSES))
    for uri, mask in run.masks():
        ids = label(int(uri[-9:-4]), *mask.shape)
        for c in range(len(CLASSES)):
            target = ids == c
            predicted = (mask == c) & (ids != 255)
            inter[c] += (target & predicted).sum()
            union[c] += (target | predicted).sum()
    assert run.class_scores()["iou"].tolist() == pytest.approx((inter / union).tolist(), rel=1e-12)
    assert success["mean_iou"] == pytest.approx((inter / union).mean(), rel=1e-12)
    assert (success["images"], success["errors"], success["labelled_images"]) == (8, 1, 7)
    assert run.confusion().to_numpy().sum() == sum((label(i, *size(i)) != 255).sum() for i in range(8) if i != 4)


def size(index: int) -> tuple[int, int]:
    return (24, 32) if index % 3 else (41, 30)


def test_a_committed_run_verifies(bucket: str) -> None:
    submit(write_inputs(bucket, 5, bad=(1,)), max_error_fraction=0.5)
    assert verify(join(bucket, "out")).ok


@pytest.mark.parametrize("window", [380, 388, 420, 2000])
def test_masks_do_not_depend_on_the_window(tmp_path: object, window: int) -> None:
    inputs = write_inputs(str(tmp_path), 4)
    submit(inputs)
    submit(inputs, window=window, output=join(inputs.root, "other"))
    one, other = (dict(Run(join(inputs.root, name)).masks()) for name in ("out", "other"))
    assert len(one) == 4
    assert all(np.array_equal(one[uri], other[uri]) for uri in one)


def test_only_missing_shards_are_worked_on(bucket: str) -> None:
    inputs = write_inputs(bucket, 8)
    asked = []

    def one_then_stop(plan: Plan, shards: list[int]) -> None:
        asked.append(shards)
        run_shards_here(plan, shards[:1])
        if len(shards) > 1:
            raise IncompleteRun("stopped")

    for _ in range(2):
        with pytest.raises(IncompleteRun):
            submit(inputs, one_then_stop)
        assert not STORAGE.exists(join(bucket, "out", "_SUCCESS.json"))
    submit(inputs, one_then_stop)
    submit(inputs, one_then_stop)
    assert asked == [[0, 1, 2], [1, 2], [2]]


def test_a_second_commit_changes_nothing(bucket: str) -> None:
    inputs = write_inputs(bucket, 4)
    submit(inputs)
    before = {info.uri: info.version for info in STORAGE.list(join(bucket, "out"))}
    STORAGE.delete(join(bucket, "out", "_SUCCESS.json"))
    STORAGE.delete(join(bucket, "out", "class_scores.parquet"))
    submit(inputs)
    assert {info.uri: info.version for info in STORAGE.list(join(bucket, "out"))} == before


def test_committed_files_are_listed_by_number(bucket: str) -> None:
    """Limit: from part 1,000,000 on, names as text sort in another order than the shards."""
    plan = make_plan(config_of(write_inputs(bucket, 1)), STORAGE)
    names = [f"predictions/{part_name(shard, plan.identity)}" for shard in (999_999, 1_000_000, 1_000_001)]
    totals = commit_module._Totals(len(plan.spec.classes))
    totals.files = [{"path": path} for path in sorted(names)]
    assert [entry["path"] for entry in commit_module._success(plan, totals, 0)["files"]] == names != sorted(names)


def test_a_missing_part_commits_nothing(bucket: str) -> None:
    inputs = write_inputs(bucket, 5)
    with pytest.raises(IncompleteRun, match="1 of 2 shards"):
        submit(inputs, lambda plan, shards: run_shards_here(plan, shards[1:]))


def test_too_many_failures_commit_nothing_and_a_higher_limit_does(bucket: str) -> None:
    inputs = write_inputs(bucket, 5, bad=(0, 3))
    with pytest.raises(IncompleteRun, match=r"2 of 5 images failed"):
        submit(inputs)
    assert not STORAGE.exists(join(bucket, "out", "_SUCCESS.json"))
    assert submit(inputs, max_error_fraction=0.4)["errors"] == 2
    errors = Run(join(bucket, "out")).errors()
    assert [uri[-9:] for uri in errors["image_uri"]] == ["00000.png", "00003.png"]


def test_a_part_that_lacks_a_row_is_never_committed(bucket: str) -> None:
    inputs = write_inputs(bucket, 6)

    def lose_a_row(plan: Plan, shards: list[int]) -> None:
        run_shards_here(plan, shards)
        uri = part_uri(plan.config.output, 1, plan.identity)
        whole = pq.read_table(pa.BufferReader(STORAGE.read(uri)))
        confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        STORAGE.write(uri, part_bytes(whole.slice(1), confusion, 1, plan.identity))

    with pytest.raises(IncompleteRun, match="part 1 does not hold the manifest's rows"):
        submit(inputs, lose_a_row)


def test_a_part_of_another_shard_is_never_committed(bucket: str) -> None:
    inputs = write_inputs(bucket, 6)

    def swap(plan: Plan, shards: list[int]) -> None:
        run_shards_here(plan, shards)
        storage = STORAGE
        output = plan.config.output
        first = storage.read(part_uri(output, 0, plan.identity))
        storage.write(part_uri(output, 1, plan.identity), first)

    with pytest.raises(RunConflict, match="shard 0"):
        submit(inputs, swap)


def test_no_image_at_all_is_a_run_with_empty_tables(bucket: str) -> None:
    inputs = write_inputs(bucket, 0)
    success = submit(inputs, allow_empty=True)
    run = Run(join(bucket, "out"))
    assert success["images"] == 0 and success["mean_iou"] is None
    assert len(run.predictions()) == 0 and len(run.class_scores()) == len(CLASSES)
    assert run.class_scores()["iou"].isna().all()


def test_tables_are_where_the_contract_says(bucket: str) -> None:
    inputs = write_inputs(bucket, 4)
    submit(inputs)
    identity = make_plan(config_of(inputs), STORAGE).identity
    names = {info.uri.removeprefix(join(bucket, "out") + "/") for info in STORAGE.list(join(bucket, "out"))}
    parts = {
        f"{table}/part-00000{n}-{identity[:12]}.parquet" for table in ("predictions", "image_scores") for n in (0, 1)
    }
    fixed = {"run.json", "_SUCCESS.json", "manifest/part-000000.parquet", "class_scores.parquet", "confusion.parquet"}
    assert names == parts | fixed | {"errors.parquet"}
    listed = {entry["path"] for entry in json.loads(STORAGE.read(join(bucket, "out", "_SUCCESS.json")))["files"]}
    assert listed == names - {"run.json", "_SUCCESS.json"}


def test_masks_have_the_size_of_their_image(tmp_path: object) -> None:
    inputs = write_inputs(str(tmp_path), 3)
    submit(inputs)
    table = pq.read_table(join(inputs.root, "out", "predictions")).to_pylist()
    assert [decode_mask(row["mask"]["bytes"]).shape for row in table] == [size(i) for i in range(3)]


def test_names_with_special_characters_are_names_like_any_other(bucket: str) -> None:
    inputs = write_inputs(bucket, 0)
    names = ["a b#1.png", "50%25 [x].png", "q?uestion&=+.png", "star*.png", "ümlaut 日本.png", "semi;colon@.png"]
    for index, name in enumerate(names):
        STORAGE.write(join(bucket, "images", name), png(picture(index)))
        STORAGE.write(join(bucket, "labels", name), png(label(index)))
    success = submit(inputs)
    assert (success["images"], success["errors"], success["labelled_images"]) == (len(names), 0, len(names))
    run = Run(join(bucket, "out"))
    for index, name in enumerate(names):
        expected = predict(narrow_network(), picture(index)).labels
        assert np.array_equal(run.mask(join(bucket, "images", name)), expected), name
