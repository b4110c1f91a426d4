"""Tests of the attempt ledger: every shard ends, whatever its images do to the processes that segment them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import IncompleteRun
from pipeline.segmentation.progress import Counts
from pipeline.segmentation.supervision import DepartedNodes, Ledger

STAGES = ("fetch", "decode", "predict")


def work(ledger: Ledger, shard: int, images: int, deadly: dict[int, str]) -> dict[int, str] | None:
    """Do one process's work on a shard; return None if the process died in the stage of a `deadly` image."""
    attempt = ledger.begin(shard)
    assert attempt is not None
    for position in range(images):
        if position not in attempt.quarantined:
            for stage in STAGES:
                if attempt.isolated:
                    ledger.record_stage(shard, attempt.number, (position, stage))
                if deadly.get(position) == stage:
                    return None
        ledger.images(shard, attempt.number, 1, int(position in attempt.quarantined))
    if attempt.isolated:
        ledger.record_stage(shard, attempt.number, None)
    ledger.end(shard)
    return dict(attempt.quarantined)


@given(st.dictionaries(st.integers(0, 7), st.sampled_from(STAGES)), st.integers(1, 4))
def test_deadly_images_are_found_and_no_others(deadly: dict[int, str], most: int) -> None:
    ledger = Ledger(most)
    died = 0
    while (quarantined := work(ledger, 5, 8, deadly)) is None:
        died += 1
    assert quarantined == deadly
    assert died == (1 + most * len(deadly) if deadly else 0)
    assert ledger.counts() == Counts(8, len(deadly), 1)
    assert ledger.begin(5) is None, "what has ended is not done again"


@given(st.lists(st.integers(0, 23), max_size=12), st.integers(3, 4))
def test_processes_killed_here_and_there_cost_no_image(moments: list[int], most: int) -> None:
    """Kills from outside hit varying images; one that hits the same image often enough cannot be distinguished."""
    ledger = Ledger(most)
    hit = dict.fromkeys(range(8), 0)
    for moment in moments:
        if max(hit.values()) == most - 1:
            break
        attempt = ledger.begin(0)
        assert attempt is not None and not attempt.quarantined
        if attempt.isolated:
            ledger.record_stage(0, attempt.number, (moment // 3, STAGES[moment % 3]))
            hit[moment // 3] += 1
    assert work(ledger, 0, 8, {}) == {} or max(hit.values()) >= most


def test_deaths_outside_images_end_the_run_in_the_end() -> None:
    ledger = Ledger(3)
    with pytest.raises(IncompleteRun, match="shard 2, outside any image"):
        for _ in range(100):
            attempt = ledger.begin(2)
            assert attempt is not None
            ledger.record_stage(2, attempt.number, (0, "fetch"))
            ledger.record_stage(2, attempt.number, None)


def test_an_attempt_that_was_given_up_is_not_heard() -> None:
    """Such an attempt may continue in a process that is cut off from the rest."""
    ledger = Ledger(1)
    first = ledger.begin(0)
    second = ledger.begin(0)
    assert first is not None and second is not None
    ledger.record_stage(0, second.number, None)
    ledger.record_stage(0, first.number, (3, "decode"))
    ledger.images(0, first.number, 1, 1)
    third = ledger.begin(0)
    assert third is not None and not third.quarantined
    assert ledger.counts() == Counts()


def test_images_count_once_however_often_they_are_tried() -> None:
    ledger = Ledger(3)
    for _ in range(3):
        attempt = ledger.begin(0)
        assert attempt is not None
        for ok in (True, False, True):
            ledger.images(0, attempt.number, 1, int(not ok))
    assert ledger.counts() == Counts(3, 1, 0)
    ledger.end(0)
    ledger.end(0)
    assert ledger.counts() == Counts(3, 1, 1)


def test_a_ledger_that_was_lost_hears_of_shards_it_does_not_know() -> None:
    ledger = Ledger(3)
    ledger.images(7, 2, 1, 0)
    ledger.record_stage(7, 2, (0, "decode"))
    ledger.end(7)
    assert ledger.counts() == Counts(0, 0, 1)


def test_a_node_that_goes_later_leaves_the_blame_where_it_is() -> None:
    """Otherwise an image would kill processes as long as nodes come and go."""
    left = set[str]()
    ledger = Ledger(2, lambda: DepartedNodes(frozenset(left)))
    quarantined = []
    for number in range(4):
        attempt = ledger.begin(0, f"node-{number}")
        assert attempt is not None
        quarantined.append(dict(attempt.quarantined))
        ledger.record_stage(0, attempt.number, (1, "decode"))
        # The node of the attempt before the last one leaves.
        left.add(f"node-{number - 2}")
    assert quarantined == [{}, {}, {1: "decode"}, {1: "decode"}]


def test_the_loss_of_a_node_may_become_known_late() -> None:
    lost = set[str]()
    ledger = Ledger(1, lambda: DepartedNodes(lost=frozenset(lost)))
    for node in ("a", "b"):
        attempt = ledger.begin(0, node)
        assert attempt is not None
    ledger.record_stage(0, attempt.number, (1, "decode"))
    lost.add("b")
    third = ledger.begin(0, "c")
    assert third is not None and not third.quarantined
