"""Tests of `dilated-context` and of its quickest command, which predicts a few images without Ray."""

from __future__ import annotations

import importlib
import os
import re
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

# Modules that --help must not import, because each costs seconds.
HEAVY = ("ray", "torch", "pandas", "pyarrow", "matplotlib")
COMMANDS = (
    "train",
    "segment",
    "predict",
    "report",
    "score",
    "verify",
    "compare",
    "export",
    "runs",
    "paint-labels",
    "import-network",
)
WRITERS = ("predict", "report", "score", "compare", "export", "paint-labels", "import-network", "segment")


def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command in a process of its own; return the process, and those of `HEAVY` that it had imported."""
    report = f"atexit.register(lambda: print(*(set({HEAVY}) & set(sys.modules)), sep='\\n', file=sys.stderr))"
    code = f"import atexit, sys; from jobs.cli import main; {report}; sys.exit(main())"
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    return done, {*done.stderr.split()} & {*HEAVY}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    done, imported = run(name, *(["custom"] if name == "train" else []), "--help")
    assert done.returncode == 0 and f"usage: dilated-context {name}" in done.stdout, done.stderr
    assert imported == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_reads_as_the_docstring_and_explains_every_option(name: str) -> None:
    done, _ = run(name, *(["custom"] if name == "train" else []), "--help")
    # Commands keep their lines, and prose is wrapped.
    docstring = importlib.import_module(f"jobs.{cli._JOBS[name]}").__doc__ or ""
    command = next(paragraph for paragraph in docstring.split("\n\n") if paragraph.startswith("    "))
    assert f"\n{command}\n" in done.stdout and all(len(line) <= 120 for line in command.splitlines())
    lines = done.stdout.replace(command, "").splitlines()
    assert all(len(line) <= 100 for line in lines if not line.startswith("usage:"))
    # Every option states its default in words, or that it is required.
    boxes = re.sub(r"\s*│\n│\s*", " ", done.stdout[done.stdout.index("usage:") :])
    options = re.findall(r"^│ (--[\w.-]+)", done.stdout, re.MULTILINE)
    assert boxes.count("(default: ") + boxes.count("(required)") >= len(options)
    assert "(default: None)" not in re.sub(r"--\w+\.crop .*?\)", "", boxes)
    assert ("--dry-run" in done.stdout) == (name in (*WRITERS, "train"))


def test_unknown_commands_are_answered_with_the_known_ones() -> None:
    done, _ = run("nonsense")
    assert done.returncode == 2 and "unknown command 'nonsense': choose one of train, segment" in done.stderr
    assert "commands: train, segment" in run()[0].stdout
    assert set(cli._JOBS) == {*COMMANDS}
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert set(cli._JOBS.values()) == scripts - {"__init__", "cli", "command_line"}


def test_exit_codes_pass_through_the_command(tmp_path: Path) -> None:
    for arguments, code in ((["verify", str(tmp_path)], 3), (["runs", str(tmp_path)], 0), (["runs", "--nonsense"], 2)):
        assert run(*arguments)[0].returncode == code


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
