"""Tests of dividing one folder into train and val: stable while it grows, groups together, no empty side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.training.preparation.division import Division

PATHS = st.lists(st.text("abc/0123", min_size=1, max_size=8), min_size=2, max_size=60, unique=True)


@given(PATHS, st.floats(0.01, 0.99))
def test_both_sides_have_images_and_every_image_has_one(paths: list[str], fraction: float) -> None:
    aside = Division(fraction).is_validation(paths, "data")
    assert len(aside) == len(paths) and 0 < sum(aside) < len(paths)
    assert aside == Division(fraction).is_validation(paths, "data")


@given(PATHS, st.data())
def test_more_images_move_none_that_the_hash_chose(paths: list[str], data: st.DataObject) -> None:
    rule = Division(0.5)
    before = dict(zip(paths, rule.is_validation(paths, "data", optional=True), strict=True))
    more = [*paths, *(path for path in data.draw(PATHS) if path not in before)]
    after = dict(zip(more, rule.is_validation(more, "data", optional=True), strict=True))
    assert {path: after[path] for path in paths} == before


def test_the_choice_depends_on_the_names_alone() -> None:
    """The expected choice is written down, since another machine, process or version must make the same one."""
    names = [f"photo{number}" for number in range(12)]
    aside = [name for name, chosen in zip(names, Division(0.25).is_validation(names, "data"), strict=True) if chosen]
    assert aside == ["photo0", "photo1", "photo4", "photo7", "photo8", "photo10"]


def test_the_share_is_about_what_was_asked_for() -> None:
    paths = [f"photo{number:05d}" for number in range(10_000)]
    assert sum(Division(0.1).is_validation(paths, "data")) == pytest.approx(1000, abs=100)


@given(st.integers(2, 12), st.integers(1, 9), st.sampled_from([r"(seq\d+)_", r"seq\d+", r"^([^/]+)/"]))
def test_groups_stay_together(groups: int, frames: int, pattern: str) -> None:
    paths = [f"seq{group}_d/f{frame}" for group in range(groups) for frame in range(frames)]
    aside = Division(0.3, pattern).is_validation(paths, "data")
    for group in range(groups):
        assert len(set(aside[group * frames : (group + 1) * frames])) == 1
    assert 0 < sum(aside) < len(paths)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--val-group 'x\(\[0-9\]\)' matches none of 2 images of s3://b/d, such as 'a'"
    ):
        Division(0.1, "x([0-9])").is_validation(["a", "b"], "s3://b/d")
    with pytest.raises(ConfigError, match="s3://b/d has 1 groups, too few"):
        Division(0.1, "(seq)").is_validation(["seq1", "seq2"], "s3://b/d")
    with pytest.raises(ConfigError, match="1 images, too few"):
        Division(0.1).is_validation(["a"], "s3://b/d")
    assert Division(0.1).is_validation(["a"], "s3://b/d", optional=True) == [False]
    assert Division(0.1, "(seq[0-9])").unmatched(["seq1", "x", "seq2"]) == ["x"] and not Division(0.1).unmatched(["x"])
