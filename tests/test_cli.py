"""Tests of `dilated-context` and of its quickest command, which predicts a few images without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import cli, predict
from model.files.checkpoint import to_bytes
from model.prediction.dense_prediction import predict as predict_labels
from tests.job_helpers import ROOT
from tests.segmentation.support import CLASSES, narrow_network, picture, png

# Jobs that need no Ray must not import it: it costs seconds.
WITHOUT_RAY = ("predict", "report", "score", "verify", "compare", "export", "runs", "paint-labels")


def run(*arguments: str, check_ray: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; with `check_ray` it says at its end whether Ray was imported."""
    say = "import atexit, sys; atexit.register(lambda: print('ray' in sys.modules)); " if check_ray else ""
    code = (
        f"{say}import sys; from jobs.cli import main; sys.argv = ['dilated-context', *sys.argv[1:]]; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_commands_that_need_no_ray_do_not_import_it(name: str) -> None:
    done = run(name, "--help", check_ray=True)
    assert done.returncode == 0 and f"usage: dilated-context {name}" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_training_and_segmentation_answer_with_their_own_options() -> None:
    for name, option in (("segment", "--images"), ("train", "custom")):
        done = run(name, "--help")
        assert done.returncode == 0 and option in done.stdout, done.stderr


def test_unknown_commands_are_answered_with_the_known_ones() -> None:
    done = run("nonsense")
    assert done.returncode == 2 and "unknown command 'nonsense': choose one of train, segment" in done.stderr
    assert "commands: train, segment" in run().stdout
    assert set(cli._JOBS) == {*WITHOUT_RAY, "train", "segment"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "network.safetensors").write_bytes(to_bytes(narrow_network()))
    for index in (1, 2):
        (tmp_path / f"p{index}.png").write_bytes(png(picture(index)))
    return tmp_path


def test_masks_and_overlays_of_a_few_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(folder / f"p{index}.png") for index in (1, 2)]
    options = ["--checkpoint", str(folder / "network.safetensors"), "--output", str(folder / "out")]
    assert predict.main([*images, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    for index, line in zip((1, 2), lines, strict=False):
        expected = predict_labels(narrow_network(), picture(index)).labels
        mask = np.asarray(Image.open(folder / "out" / f"p{index}.png"))
        assert (mask == expected).mean() > 0.999
        largest = int(np.bincount(mask.ravel()).argmax())
        assert line.startswith(f"{images[index - 1]}: {CLASSES[largest]} {(mask == largest).mean():.0%}")
        painted = np.asarray(Image.open(folder / "out" / f"p{index}_overlay.png"))
        color = np.array(narrow_network().spec.palette, np.float32)[mask]
        assert np.abs(painted - (0.6 * color + 0.4 * picture(index))).max() <= 1


def test_what_cannot_be_predicted_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ["--checkpoint", str(folder / "network.safetensors"), "--output", str(folder / "out")]
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "x").mkdir()
    cases = (
        ([str(folder / "bad.png"), *network], 3, "bad.png cannot be read: not a JPEG"),
        ([str(folder / "p1.png"), str(folder / "x/p1.jpg"), *network], 2, "two images are called 'p1'"),
        (
            [str(folder / "p1.png"), "--checkpoint", str(folder / "p1.png"), "--output", "o"],
            2,
            "not a usable checkpoint",
        ),
        (
            [str(folder / "p1.png"), "--checkpoint", str(folder / "none"), "--output", "o"],
            2,
            "give the URI of a network",
        ),
    )
    for arguments, code, message in cases:
        assert predict.main(arguments) == code
        assert message in capsys.readouterr().err
