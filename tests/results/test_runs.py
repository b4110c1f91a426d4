"""Tests of listing runs below a prefix, on a real bucket and in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from jobs.runs import main
from pipeline.data import listing
from pipeline.data.listing import level
from pipeline.data.storage import Storage, join
from pipeline.errors import StorageError
from pipeline.results.runs import find_runs
from pipeline.results.tables import Run
from tests.segmentation.support import config_of, run_here, write_inputs
from tests.shared import STORAGE


@pytest.fixture(params=["s3", "local"])
def root(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("bucket") if request.param == "s3" else str(request.getfixturevalue("tmp_path"))


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_level_is_what_lies_directly_below(root: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png", "f/g.png", "b.png"):
        STORAGE.write(join(root, "in", name), b"x")
    monkeypatch.setattr(listing, "_PAGE", page)
    expected = {(join(root, "in", name), folder) for name, folder in (("a.png", 0), ("b.png", 0), ("b", 1), ("f", 1))}
    for prefix in (join(root, "in"), join(root, "in/")):
        found = list(level(STORAGE, prefix))
        assert set(found) == expected and len(found) == 4
    assert list(level(STORAGE, join(root, "none"))) == []


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket: str) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        list(level(STORAGE, "s3://no-such-bucket/in"))


def test_runs_say_where_they_are_and_how_far(root: str) -> None:
    inputs = write_inputs(root, 7, bad=(3,))
    run_here(config_of(inputs, output=join(root, "runs/a"), max_error_fraction=0.5))
    run_here(config_of(inputs, output=join(root, "runs/deep/er/b"), since=join(root, "runs/a")))
    STORAGE.delete(join(root, "runs/a/_SUCCESS.json"))
    STORAGE.delete(max(info.uri for info in STORAGE.list(join(root, "runs/a/predictions"))))
    first, second = find_runs(STORAGE, root)
    assert (first.output, first.state, first.images, first.errors) == (join(root, "runs/a"), "2 of 3 parts", 7, None)
    assert (second.output, second.state, second.images) == (join(root, "runs/deep/er/b"), "committed", 0)
    assert second.since == first.output and second.mean_iou is None
    assert second.run_id == Run(second.output).success["run_id"]
    assert first.checkpoint == join(root, "network.safetensors")
    assert [run.output for run in find_runs(STORAGE, second.output)] == [second.output]
    assert [run.output for run in find_runs(STORAGE, root, depth=2)] == [first.output]


class Refusing(Storage):
    """Storage that fails if image scores or a manifest are read."""

    def call(self, action: str, uri: str, request: Callable[[Any, str], Any]) -> Any:
        assert "image_scores" not in uri and "manifest" not in uri, f"{action} of {uri}"
        return super().call(action, uri, request)


def test_a_committed_run_is_not_looked_into(bucket: str) -> None:
    run_here(config_of(write_inputs(bucket, 4)))
    (run,) = find_runs(Refusing(), join(bucket, "out"))
    assert run.mean_iou == Run(run.output).success["mean_iou"]


def test_a_broken_run_does_not_hide_the_others(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_here(config_of(write_inputs(bucket, 2)))
    for name, content in {"a": b"[1, 2]", "b": b"{", "c": b'{"shards": {}}'}.items():
        STORAGE.write(join(bucket, name, "run.json"), content)
    assert main([bucket]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and sum("unreadable" in line for line in lines) == 3 and "committed" in lines[4]
    assert main([bucket, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["committed"] for row in rows] == [False, False, False, True]


def test_no_run_and_no_bucket(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([bucket]) == 0 and "no run lies" in capsys.readouterr().out
    assert main(["s3://no-such-bucket"]) == 3 and "bucket does not exist" in capsys.readouterr().err
