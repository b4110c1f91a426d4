"""Tests of `--dry-run`: its forecast equals what a run then does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.results.tables import Run
from pipeline.segmentation.runs.forecast import ThroughputEstimate, forecast
from tests.segmentation.support import config_of, run_here, write_inputs
from tests.shared import STORAGE


class Counting(Storage):
    """Storage that counts requests."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def call(self, action: str, uri: str, request: Callable[[Any, str], Any]) -> Any:
        self.calls[action] += 1
        return super().call(action, uri, request)


def test_it_says_what_a_run_then_does(bucket: str) -> None:
    config = config_of(write_inputs(bucket, 7))
    counting = Counting()
    found = forecast(config, STORAGE)
    assert STORAGE.list(config.output) == []
    run_here(config, counting)
    assert (found.images, found.labelled, found.shards, found.finished, found.images_left) == (7, 7, 3, 0, 7)
    assert found.size == sum(Run(config.output).manifest()["size"])
    # Each of two actors requests network and manifest; here one actor ran, which already had the network.
    assert found.requests.get == counting.calls["read"] + 3
    assert found.requests.list == pytest.approx(counting.calls["list"], abs=2)
    assert found.requests.put == pytest.approx(counting.calls["create"] + counting.calls["write"], abs=3)
    assert found.throughput.seconds is not None and found.throughput.seconds > 0


def test_a_half_finished_run_has_half_the_work_left(bucket: str) -> None:
    config = config_of(write_inputs(bucket, 7))
    run_here(config)
    last = max(info.uri for info in STORAGE.list(join(config.output, "predictions")))
    for uri in (last, join(config.output, "_SUCCESS.json")):
        STORAGE.delete(uri)
    found = forecast(config, STORAGE)
    assert (found.shards, found.finished, found.images_left) == (3, 2, 1)


def test_another_run_there_is_refused_as_it_would_be(bucket: str) -> None:
    config = config_of(write_inputs(bucket, 3))
    run_here(config)
    with pytest.raises(RunConflict, match="confidence_maps"):
        forecast(config.model_copy(update={"confidence_maps": True}), STORAGE)


def test_since_says_what_changed(bucket: str) -> None:
    inputs = write_inputs(bucket, 4)
    run_here(config_of(inputs))
    STORAGE.delete(join(bucket, "images", "00003.png"))
    found = forecast(config_of(inputs, output=join(bucket, "next"), since=join(bucket, "out")), STORAGE)
    assert "0 new, 0 changed, 3 unchanged, 1 gone" in found.text()
    assert found.throughput == ThroughputEstimate(None, "no image is left to segment")


def test_images_that_are_none_give_no_pace(bucket: str) -> None:
    found = forecast(config_of(write_inputs(bucket, 2, bad=(0, 1))), STORAGE)
    assert "not known: of 2 images that were tried none" in found.text()


def test_a_gpu_that_is_not_here_is_not_guessed_at(bucket: str) -> None:
    found = forecast(config_of(write_inputs(bucket, 2), gpus_per_actor=1), STORAGE)
    assert "this machine has none" in found.text()
