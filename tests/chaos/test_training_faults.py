"""Tests of training with failing storage and crashes at any request: losses and weights stay equal to the bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.storage import RetryPolicy, Storage, join
from pipeline.errors import PipelineError, StorageError
from pipeline.training.config import TrainConfig
from pipeline.training.runs import lease, run
from pipeline.training.runs.run import train
from tests.chaos.fault_proxy import Fault, FaultProxy, random_weather
from tests.shared import EXHAUSTIVE
from tests.training.support import assert_same_training, run_here, run_phase_here, small_recipe, write_data

SEED = int(os.environ.get("CHAOS_SEED", "20"))
QUICK = RetryPolicy(attempts=3, first_delay=0.005, max_delay=0.01)
SHARE = 0.15
MOST_SUBMISSIONS = 40
ENDS = 12 if EXHAUSTIVE else 2


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_PAUSE_SECONDS", 0.0)


def submit(config: TrainConfig, storage: Storage) -> None:
    """Make a submission whose workers run in this process."""
    train(
        config, lambda config: None, lambda config, phase, held: run_phase_here(config, phase, None, storage), storage
    )


def config_of(data: str, output: str, **changes: Any) -> TrainConfig:
    return TrainConfig(data=data, output=output, recipe=small_recipe(), **changes)


def test_submitted_again_until_done_training_in_a_storm_is_the_calm_one(
    behind: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    data = write_data(join(behind, "data"))
    run_here(config_of(data, str(tmp_path / "calm")))
    proxy.storm(random_weather(SEED, SHARE))
    for _ in range(MOST_SUBMISSIONS):
        try:
            submit(config_of(data, join(behind, "run")), Storage(QUICK))
            break
        except PipelineError as error:
            assert isinstance(error, StorageError) and error.exit_code == 3, (SEED, error)
    else:
        raise AssertionError(f"not done after {MOST_SUBMISSIONS} submissions, seed {SEED}")
    proxy.clear()
    assert len(proxy.injected) > 50 * SHARE, f"{len(proxy.injected)} faults are no storm"
    assert_same_training(join(behind, "run"), str(tmp_path / "calm"))


def test_credentials_that_expire_end_the_run_and_new_ones_go_on(behind: str, proxy: FaultProxy, tmp_path: Path) -> None:
    data = write_data(join(behind, "data"))
    run_here(config_of(data, str(tmp_path / "calm")))
    output = join(behind, "run")
    proxy.inject(
        Fault("status", status=403, code="ExpiredToken", path="checkpoints", method="PUT", after=1, times=None)
    )
    before = len(proxy.requests)
    with pytest.raises(StorageError, match="credentials"):
        submit(config_of(data, output, max_failures=0), Storage(QUICK))
    assert len(proxy.requests) - before < 1000, "tried again and again"
    proxy.clear()
    submit(config_of(data, output), Storage(QUICK))
    assert_same_training(output, str(tmp_path / "calm"))


class _End(BaseException):
    """End of the process, an exception that no code under test catches."""


class _Mortal(Storage):
    """Storage that ends its process at the request of a given number, before or after the request is made."""

    def __init__(self, last: int, *, after: bool) -> None:
        super().__init__()
        self.requests = 0
        self._last = last
        self._after = after

    def call(self, action: str, uri: str, request: Callable[[Any, str], Any]) -> Any:
        self.requests += 1
        if self.requests >= self._last and not self._after:
            raise _End
        result = super().call(action, uri, request)
        if self.requests >= self._last:
            raise _End
        return result


def test_an_end_at_any_request_changes_neither_losses_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease.Lease, "_await_silence", lambda self, number: None)  # the last driver is known to be dead
    data = write_data(str(tmp_path / "data"))
    counting = _Mortal(10**9, after=False)
    submit(config_of(data, str(tmp_path / "calm")), counting)
    rng = random.Random(SEED)
    for number in range(ENDS):
        config = config_of(data, str(tmp_path / f"{number}"))
        last = rng.randrange(2, counting.requests)
        with pytest.raises(_End):
            submit(config, _Mortal(last, after=number % 2 == 1))
        submit(config, Storage())
        assert_same_training(config.output, str(tmp_path / "calm"))
