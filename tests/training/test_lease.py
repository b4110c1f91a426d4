"""Tests of one driver per run: a live driver is respected, a dead one is replaced by exactly one of two candidates."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.training.runs.lease import Lease, check_driver
from tests.shared import STORAGE

BEAT = 0.05
PATIENCE = 1.0
# Patience of drivers that wait beside a live one: its next beat ends the wait, even if a busy machine delays it.
LONG = 60.0


def lease(output: str, patience: float = PATIENCE) -> Lease:
    return Lease(STORAGE, output, BEAT, patience)


def dead_driver(output: str, number: int = 1) -> None:
    """Write the files that a killed driver leaves: its name and its last beat."""
    STORAGE.write(join(output, "drivers", f"{number:06d}.json"), b'{"host": "h1", "pid": 77, "id": "x"}')
    STORAGE.write(join(output, "drivers", f"{number:06d}.beat"), b"41")


@pytest.fixture(params=["folder", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: object) -> str:
    return str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")


def test_the_second_driver_is_refused_by_name(output: str) -> None:
    with lease(output) as first:
        with pytest.raises(RunConflict, match=r"driver 1 of .* \(process \d+ on .+\) is at work on this run"):
            lease(output, LONG).__enter__()
        check_driver(STORAGE, output, first.number)


def test_after_a_clean_end_nobody_waits(output: str) -> None:
    with lease(output):
        pass
    patient = lease(output, patience=3600)
    with patient:
        assert patient.number == 2


def test_a_dead_driver_is_replaced_after_the_time_of_patience(output: str) -> None:
    dead_driver(output)
    started = time.monotonic()
    with lease(output) as second:
        assert time.monotonic() - started >= PATIENCE
        assert second.number == 2
        names = {info.uri.rsplit("/", 1)[1] for info in STORAGE.list(join(output, "drivers"))}
        assert not any(name.startswith("000001") for name in names)


def test_of_two_who_find_a_dead_driver_one_goes_on(output: str) -> None:
    dead_driver(output, 4)
    entered = []
    refused = []
    done = threading.Event()

    def submit() -> None:
        try:
            with Lease(Storage(), output, BEAT, PATIENCE) as own:
                entered.append(own.number)
                done.wait(20)
        except RunConflict as error:
            refused.append(str(error))
            done.set()

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert entered == [5] and len(refused) == 1 and "driver 5 of" in refused[0]


def test_each_attempt_has_a_number_of_its_own(output: str) -> None:
    """Workers of an earlier attempt, cut off but alive, learn that their attempt is over."""
    with lease(output) as own:
        own.renew()
        assert own.number == 2
        check_driver(STORAGE, output, 2)
        with pytest.raises(RunConflict, match=r"driver 2 has taken .* over from driver 1"):
            check_driver(STORAGE, output, 1)
        with pytest.raises(RunConflict, match=r"driver 2 of .* is at work on this run"):
            lease(output, LONG).__enter__()
    with lease(output, patience=3600) as following:
        assert following.number == 3


def test_an_attempt_of_a_driver_that_was_replaced_does_not_begin(output: str) -> None:
    with lease(output) as own:
        dead_driver(output, own.number + 1)
        with pytest.raises(RunConflict, match="driver 2 has taken"):
            own.renew()


def test_a_driver_that_wakes_up_too_late_is_told_so(output: str) -> None:
    dead_driver(output)
    with lease(output) as second:
        with pytest.raises(RunConflict, match=r"driver 2 has taken .* over from driver 1"):
            check_driver(STORAGE, output, 1)
        check_driver(STORAGE, output, second.number)
