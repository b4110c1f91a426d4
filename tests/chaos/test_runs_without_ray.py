"""Tests of whole submissions in this process, with storage that fails at random and with a crash at every request."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import PipelineError, StorageError
from pipeline.results.verify import verify
from tests.chaos.fault_proxy import FaultProxy, random_weather
from tests.segmentation.support import assert_same_tables, config_of, run_here, write_inputs
from tests.shared import sampled

SEED = int(os.environ.get("CHAOS_SEED", "20"))
QUICK = RetryPolicy(attempts=3, first_delay=0.005, max_delay=0.01)
MOST_SUBMISSIONS = 60


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_submitted_again_until_done_a_run_in_a_storm_is_the_calm_one(
    behind: str, proxy: FaultProxy, tmp_path: Path, share: float
) -> None:
    inputs = write_inputs(behind, 10, bad=(4,))
    changes: dict[str, Any] = {"max_error_fraction": 0.2}
    run_here(config_of(inputs, output=str(tmp_path / "calm"), **changes))
    proxy.storm(random_weather(SEED, share))
    failures = 0
    for _ in range(MOST_SUBMISSIONS):
        try:
            run_here(config_of(inputs, **changes), Storage(QUICK))
            break
        except PipelineError as error:
            # The error never blames an image, the output or the user's settings; it asks to submit the run again.
            assert isinstance(error, StorageError) and error.exit_code == 3, (SEED, error)
            failures += 1
    else:
        raise AssertionError(f"not done after {MOST_SUBMISSIONS} submissions, seed {SEED}")
    proxy.clear()
    assert len(proxy.injected) > 20 * share, f"{len(proxy.injected)} faults are no storm"
    assert_same_tables(join(behind, "out"), str(tmp_path / "calm"))
    assert verify(join(behind, "out")).ok, f"seed {SEED}"


class _Crash(BaseException):
    """End of the process, an exception that no code under test catches."""


class _Mortal(Storage):
    """Storage that ends its process before or after the request of a given number."""

    def __init__(self, last: int, *, after: bool) -> None:
        super().__init__()
        self.requests = 0
        self._last = last
        self._after = after

    def call(self, action: str, uri: str, request: Callable[[Any, str], Any]) -> Any:
        self.requests += 1
        if self.requests == self._last and not self._after:
            raise _Crash
        result = super().call(action, uri, request)
        if self.requests >= self._last and self._after:
            raise _Crash
        return result


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_request_costs_nothing(tmp_path: Path, after: bool) -> None:
    """The next submission ends the run as if undisturbed, after a crash in listing, claim, a part or commit."""
    inputs = write_inputs(str(tmp_path / "in"), 5, bad=(1,))
    changes: dict[str, Any] = {"max_error_fraction": 0.5, "shard_images": 2}
    counting = _Mortal(10**9, after=after)
    run_here(config_of(inputs, output=str(tmp_path / "calm"), **changes), counting)
    assert counting.requests > 25
    for last in sampled(range(1, counting.requests + 1), 9):
        config = config_of(inputs, output=str(tmp_path / f"{last}"), **changes)
        with pytest.raises(_Crash):
            run_here(config, _Mortal(last, after=after))
        run_here(config)
        assert_same_tables(config.output, str(tmp_path / "calm"))
    assert verify(config.output).ok
