"""Tests that invalid command lines are refused with one message and exit code 2, before Ray is imported or started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
from pydantic import BaseModel

from jobs import compare, export, paint_labels, predict, report, runs, score, segment_bucket, train, verify
from pipeline.errors import ExitCode
from pipeline.ray_backend import entry_points
from pipeline.results.exports.export import FORMATS
from pipeline.results.exports.masks import Order
from pipeline.segmentation.config import SegmentConfig
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig

INPUTS = ["--images", "in", "--checkpoint", "network.safetensors", "--output", "out"]
RECIPE = ["street_scenes", "--data", "data", "--output", "run"]
EXPORT = ["run", "--to", "coco", "--output", "out"]
Main = Callable[[Sequence[str]], ExitCode]


@pytest.fixture(autouse=True)
def nobody_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(**options: object) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(entry_points, "connect", connect)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (compare.main, ["a", "b"]),
        (export.main, EXPORT),
        (paint_labels.main, ["source", "--output", "out"]),
        (predict.main, ["a.png", "--checkpoint", "n", "--output", "out"]),
        (report.main, ["run"]),
        (runs.main, ["prefix"]),
        (score.main, ["run"]),
        (segment_bucket.main, INPUTS),
        (train.main, RECIPE),
        (verify.main, ["run"]),
    ],
)
def test_every_job_refuses_unknown_options(
    main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--no-such-option", "1"]) == 2
    captured = capsys.readouterr()
    assert "no-such-option" in captured.err and "Traceback" not in captured.err and not captured.out


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (segment_bucket.main, [*INPUTS, "--window", "12"], "--window is 12, must be at least 380"),
        (segment_bucket.main, [*INPUTS, "--scales", "0.01"], "--scales.0 is 0.01, must be at least 0.25"),
        (report.main, ["run", "--images", "0"], "--images is 0, must be at least 1"),
        (compare.main, ["a", "b", "--images", "-1"], "--images is -1, must be at least 0"),
        (runs.main, ["prefix", "--depth", "-1"], "--depth is -1, must be at least 0"),
        (export.main, [*EXPORT, "--images", "0"], "--images is 0, must be at least 1"),
        (export.main, [*EXPORT, "--label-values"], "--label-values is for index-png, not for coco"),
        (
            export.main,
            [*EXPORT, "--tolerance", "1"],
            "--tolerance is 1, must be 0 or more, and is for geojson only",
        ),
        (predict.main, ["--checkpoint", "n", "--output", "o"], "no image is given: name one or more, see --help"),
        (
            train.main,
            [*RECIPE, "--resize", "4"],
            "--resize: it needs a long side, or a height and a width, of 8 to 10,000 pixels each, got (4,)",
        ),
        (
            train.main,
            [*RECIPE, "--network.scale", "-1"],
            "network.scale = -1 is derived by the recipes custom and custom_vgg16 alone",
        ),
        (
            train.main,
            [*RECIPE, "--data", "more"],
            "--data is given more than once: name all data sets after one, as in --data A B",
        ),
    ],
)
def test_values_that_mean_nothing_are_named_in_one_line(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (train.main, [*RECIPE, "--front-end.itterations", "5"], "itterations"),
        (train.main, ["no_such_recipe"], "camvid_dilation8"),
        (export.main, ["run", "--to", "jpeg", "--output", "out"], "jpeg"),
        (verify.main, [], "OUTPUT"),
        (runs.main, ["prefix", "--depth", "deep"], "--depth"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_training_without_a_recipe_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([]) == 2 and train.main(["--help"]) == 0
    assert capsys.readouterr().out.count("  camvid_dilation8  ") == 2


@pytest.mark.parametrize(
    "options",
    [
        compare.CompareOptions,
        export.ExportOptions,
        paint_labels.PaintOptions,
        predict.PredictOptions,
        report.ReportOptions,
        runs.RunsOptions,
        score.ScoreOptions,
        verify.VerifyOptions,
        SegmentConfig,
        TrainConfig,
        Recipe,
        StageConfig,
        NetworkConfig,
    ],
)
def test_every_option_is_described_by_a_sentence(options: type[BaseModel]) -> None:
    for name, field in options.model_fields.items():
        assert field.description and field.description.endswith("."), name


def test_the_formats_and_orders_of_an_export_are_those_of_the_library() -> None:
    fields = export.ExportOptions.model_fields
    assert get_args(fields["to"].annotation) == tuple(FORMATS)
    assert get_args(export.Order) == get_args(Order)
