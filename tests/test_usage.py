"""Tests that invalid command lines are refused before Ray is started."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs import segment_bucket, train
from pipeline.errors import ConfigError

INPUTS = ["--images", "in", "--checkpoint", "network.safetensors", "--output", "out"]
RECIPE = ["street_scenes", "--data", "data", "--output", "run"]


@pytest.fixture(autouse=True)
def nobody_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**options: object) -> None:
        raise AssertionError("Ray was asked for")

    for job in (segment_bucket, train):
        monkeypatch.setattr(job, "connect", connect)


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        (segment_bucket.main, [*INPUTS, "--window", "12"], "greater than or equal to 380"),
        (segment_bucket.main, [*INPUTS, "--scales", "0.01"], "greater than or equal to 0.25"),
        (segment_bucket.main, [*INPUTS, "--no-such-option", "1"], "no-such-option"),
        (train.main, [*RECIPE, "--front-end.itterations", "5"], "itterations"),
    ],
)
def test_what_means_nothing_is_named(
    job: Callable[[list[str]], int], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        job(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split()) and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resize", "4"], r"it needs a long side, or a height and a width, of 8 to 10,000 pixels each, got \(4,\)$"),
        (["--network.scale", "-1"], r"network\.scale = -1 is derived by the recipes custom and custom_vgg16 alone$"),
    ],
)
def test_values_that_mean_nothing_are_named_in_one_line(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        train.main([*RECIPE, *options])
    assert "\n" not in str(refusal.value)


def test_data_sets_are_named_after_one_option() -> None:
    with pytest.raises(ConfigError, match="name all data sets after one, as in --data A B"):
        train.main([*RECIPE, "--data", "more"])


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="camvid_dilation8") as refusal:
        train.main(["no_such_recipe"])
    assert refusal.value.exit_code == 2
