"""Tests of the facts at the top of a report, for runs with special settings."""

from __future__ import annotations

from typing import Any

from pipeline.results.report.survey import Survey, main_facts


def facts(**info: Any) -> dict[str, str]:
    return dict(main_facts({"manifest": {"rows": 7}, **info}, Survey(1)))


def test_a_run_since_another_says_what_it_leaves_out() -> None:
    counts = {"new": 2, "changed": 1, "unchanged": 1200, "gone": 0}
    found = facts(since={"output": "s3://b/out/monday", "run_id": "0", **counts})
    assert found["since"].startswith("s3://b/out/monday: 2 new, 1 changed, 1,200 unchanged, 0 gone")
    counts |= {"retried": 3, "relabeled": 4}
    found = facts(since={"output": "s3://b/out/monday", "run_id": "0", **counts})
    assert ": 2 new, 1 changed, 4 relabeled, 3 retried, 1,200 unchanged" in found["since"]
    assert "since" not in facts() and "since" not in facts(since=None)


def test_averages_are_named() -> None:
    assert (
        facts(settings={"flip": True, "scales": [0.75, 1.0]})["averaged over"] == "scales 0.75, 1, each also mirrored"
    )
    assert facts(settings={"scales": [1.25]})["averaged over"] == "scales 1.25"
    assert "averaged over" not in facts(settings={"flip": False, "scales": [1.0]})
