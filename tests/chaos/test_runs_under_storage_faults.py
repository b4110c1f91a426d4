"""Tests of whole submissions in this process under storage faults: messages, kept results and exit codes."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import AccessDenied, PipelineError, StorageError
from pipeline.results.verify import verify
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from tests.chaos.fault_proxy import Fault, FaultProxy, Request
from tests.segmentation.support import (
    Inputs,
    assert_same_tables,
    config_of,
    png,
    predictions_of,
    run_here,
    run_shards_here,
    write_inputs,
)
from tests.segmentation.support import picture as image
from tests.shared import STORAGE

SEED = int(os.environ.get("CHAOS_SEED", "11"))
QUICK = RetryPolicy(attempts=3, first_delay=0.005, max_delay=0.01)
IMAGES = 7
MOST_SUBMISSIONS = 80
CHANGES: dict[str, Any] = {"max_error_fraction": 0.5}


@pytest.fixture
def inputs(behind: str) -> Inputs:
    return write_inputs(behind, IMAGES, bad=(4,))


@pytest.fixture
def calm(inputs: Inputs, tmp_path: Path) -> str:
    """Return the output of an undisturbed run."""
    run_here(config_of(inputs, output=str(tmp_path / "calm"), **CHANGES))
    return str(tmp_path / "calm")


def submit(inputs: Inputs) -> PipelineError | None:
    """Make one submission through the proxy, and return the error that it failed with."""
    try:
        run_here(config_of(inputs, **CHANGES), Storage(QUICK))
    except PipelineError as error:
        return error
    return None


def cause(error: BaseException) -> BaseException:
    """Return the error of storage at the root of a run's error."""
    while not isinstance(error, StorageError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def assert_undisturbed(inputs: Inputs, calm: str) -> None:
    output = join(inputs.root, "out")
    assert_same_tables(output, calm)
    assert verify(output).ok


def test_answers_that_lie_never_reach_a_table(behind: str, proxy: FaultProxy, inputs: Inputs, calm: str) -> None:
    """Answers have status 200 and a body that is empty, short or damaged, at a position that the seed decides."""
    rng = random.Random(SEED)

    def lie(request: Request) -> Fault | None:
        if request.method != "GET" or rng.random() > 0.4:
            return None
        # A damaged name within a listing would look like any other name, so listings are damaged in their envelope.
        size = rng.choice([0, 20] if "list-type" in request.path else [0, 20, 300])
        return Fault(rng.choice(["shorten", "shorten", "corrupt"]), size=size)

    proxy.storm(lie)
    for _ in range(MOST_SUBMISSIONS):
        if (error := submit(inputs)) is None:
            break
        assert isinstance(cause(error), StorageError), (SEED, error)
    else:
        raise AssertionError(f"not done after {MOST_SUBMISSIONS} submissions, seed {SEED}")
    proxy.clear()
    assert len(proxy.injected) > 5, SEED
    assert_undisturbed(inputs, calm)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=403, code="ExpiredToken"),
        Fault("status", status=403, code="AccessDenied", method="GET", path="/images/"),
        Fault("status"),
    ],
    ids=["expired", "images-forbidden", "unavailable"],
)
def test_refusals_for_good_end_a_run_at_any_moment_and_blame_no_image(
    behind: str, proxy: FaultProxy, inputs: Inputs, calm: str, fault: Fault
) -> None:
    before = len(proxy.requests)
    assert submit(inputs) is None
    hit = sum(fault.matches(request) for request in proxy.requests[before:])
    for moment in random.Random(SEED).sample(range(hit), 2):
        output = join(behind, f"out-{moment}")
        config = config_of(inputs, output=output, **CHANGES)
        before = len(proxy.injected)
        proxy.inject(replace(fault, after=moment, times=None))
        with pytest.raises(PipelineError) as refused:
            run_here(config, Storage(QUICK))
        told = cause(refused.value)
        assert isinstance(told, AccessDenied if fault.status == 403 else StorageError), (SEED, moment, told)
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)
        assert len(proxy.injected) - before <= 8 * QUICK.attempts, "threads that were under way; not image after image"
        proxy.clear()
        parts = [part.uri for part in STORAGE.list(join(output, "predictions"))]
        errors = [row for part in parts for row in predictions_of(output, part).values() if row["status"] == "error"]
        assert {row["error_stage"] for row in errors} <= {"decode"}, (SEED, moment, errors)
        run_here(config, Storage(QUICK))
        assert_same_tables(output, calm)


def test_images_that_vanish_or_change_after_the_listing_cost_themselves_alone(
    inputs: Inputs, calm: str, proxy: FaultProxy
) -> None:
    gone, other = (join(inputs.root, "images", f"{index:05d}.png") for index in (0, 5))
    storage = Storage(QUICK)

    def run_shards(plan: Plan, shards: list[int]) -> None:
        STORAGE.delete(gone)
        STORAGE.write(other, png(image(99)))
        # A change of the data is detected even while answers get lost.
        proxy.inject(Fault("reset", method="GET", path="00005.png", times=2))
        run_shards_here(plan, shards, storage)

    config = config_of(inputs, **CHANGES)
    segment_bucket(config, lambda config: None, run_shards, storage)
    rows = predictions_of(config.output)
    undisturbed = predictions_of(calm)
    told = {uri: (row["error_stage"], row["error_type"]) for uri, row in rows.items() if row["status"] == "error"}
    assert told.pop(gone) == ("fetch", "missing") and told.pop(other) == ("fetch", "changed") and len(told) == 1
    assert {uri: row for uri, row in rows.items() if uri not in (gone, other)} == {
        uri: row for uri, row in undisturbed.items() if uri not in (gone, other)
    }
    assert verify(config.output).ok
