"""Tests that the sample order is a permutation per epoch and a pure function of its arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.samples.crops import SampleParams, _order, sample_params


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 9), st.integers(0, 5))
def test_each_epoch_visits_every_image_once(seed: int, images: int, batch: int, epoch: int) -> None:
    places = range(epoch * images, (epoch + 1) * images)
    drawn = [sample_params(seed, "joint", *divmod(place, batch), batch=batch, images=images) for place in places]
    assert sorted(each.index for each in drawn) == list(range(images))
    assert all(0 <= each.row < 1 and 0 <= each.column < 1 for each in drawn)


@given(st.integers(0, 2**31), st.integers(0, 10_000), st.integers(0, 13))
def test_nothing_but_the_arguments_decides(seed: int, iteration: int, position: int) -> None:
    first = sample_params(seed, "front_end", iteration, position, batch=14, images=11)
    _order.cache_clear()
    sample_params(seed + 1, "context", 3, 0, batch=14, images=5)
    assert sample_params(seed, "front_end", iteration, position, batch=14, images=11) == first


def test_another_process_draws_the_same() -> None:
    code = (
        "from pipeline.training.samples.crops import sample_params; "
        "print(sample_params(7, 'joint', 1234, 1, batch=3, images=99))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert printed.stdout.strip() == repr(sample_params(7, "joint", 1234, 1, batch=3, images=99))


def test_seed_stage_and_epoch_change_the_order() -> None:
    def order(seed: int, stage: str, epoch: int) -> list[int]:
        return [sample_params(seed, stage, epoch * 40 + i, 0, batch=1, images=40).index for i in range(40)]  # type: ignore[arg-type]

    orders = [order(0, "front_end", 0), order(1, "front_end", 0), order(0, "joint", 0), order(0, "front_end", 1)]
    assert len({tuple(each) for each in orders}) == 4


def test_half_of_the_samples_are_mirrored_and_crops_lie_everywhere() -> None:
    drawn = [sample_params(0, "joint", i, 0, batch=1, images=10) for i in range(2000)]
    assert 900 < sum(each.mirror for each in drawn) < 1100
    assert all(abs(sum(getattr(each, axis) for each in drawn) / 2000 - 0.5) < 0.03 for axis in ("row", "column"))


def test_a_position_beyond_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="position 4"):
        sample_params(0, "joint", 0, 4, batch=4, images=1)
    assert isinstance(sample_params(0, "joint", 0, 3, batch=4, images=1), SampleParams)
