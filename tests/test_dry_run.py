"""Tests of --dry-run: it lists the files that the job then writes, refuses what the job refuses, and writes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from jobs import compare, export, paint_labels, predict, report, score, segment_bucket
from model.files.checkpoint import to_bytes
from pipeline.data.planned_files import check_target
from pipeline.data.storage import Storage
from pipeline.errors import ExitCode, StorageError
from tests.data.annotations.support import coco, rectangle, write_json
from tests.job_helpers import ROOT
from tests.results.run_builders import write_run
from tests.segmentation.support import narrow_network, picture, png, write_inputs

Main = Callable[[Sequence[str]], ExitCode]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_announced(root: Path, main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Do a dry run, then the job; assert that the first wrote nothing and announced what the second writes."""
    before = files_below(root)
    assert main([*arguments, "--dry-run"]) == 0
    announced = capsys.readouterr().out
    assert files_below(root) == before and announced.endswith("nothing was started or written\n")
    folder = Path(re.findall(r"^would write into (.*):$", announced, re.MULTILINE)[0])
    patterns = re.findall(r"^  (\S+\.\w+)  ", announced, re.MULTILINE)
    assert main(arguments) == 0
    capsys.readouterr()
    written = {str((root / name).relative_to(folder)) for name in files_below(root).keys() - before.keys()}
    assert written and all(any(fnmatch(name, pattern) for pattern in patterns) for name in written), written
    assert all(any(fnmatch(name, pattern) for name in written) for pattern in patterns), patterns
    return announced


@pytest.mark.parametrize("labels", [True, False])
def test_report(tmp_path: Path, labels: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path, labels=labels)
    announced = assert_announced(tmp_path, report.main, [output, "--images", "4"], capsys)
    assert "page about 7 images and 5 classes" in announced and "4 images with their masks" in announced


def test_report_of_a_run_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_announced(tmp_path, report.main, [write_run(tmp_path, 0, failed=())], capsys)


def test_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announced = assert_announced(tmp_path, score.main, [write_run(tmp_path)], capsys)
    assert "3 files, at most 7 rows" in announced and "without calibration" in announced


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path, 4)
    second = write_run(tmp_path, 4, name="second", run_id="f" * 16)
    assert "at most 4 rows" in assert_announced(tmp_path, compare.main, [first, second], capsys)
    other = write_run(tmp_path, 3, name="other", run_id="e" * 16)
    assert compare.main([first, other, "--dry-run"]) == 2 and "--overlap" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["index-png", "color-png", "coco", "geojson", "label-studio", "cvat"])
def test_export(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path, labels=False)
    arguments = [output, "--to", to, "--output", str(tmp_path / "export"), "--images", "3"]
    assert "3 images, 5 classes" in assert_announced(tmp_path, export.main, arguments, capsys)
    for wrong in (["--order", "worst"], ["--classes", "house"], ["--output", output]):
        assert export.main([*arguments, "--dry-run", *wrong]) == 2


def test_paint_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = [rectangle(0, 0, 4, 4)]
    source = write_json(tmp_path / "source.json", coco([(1, 3, half), (2, 3, half)], names=["u/a.jpg", "u/b.jpg"]))
    arguments = [str(source), "--output", str(tmp_path / "data")]
    announced = assert_announced(tmp_path, paint_labels.main, arguments, capsys)
    assert "2 images" in announced
    assert paint_labels.main([str(source), "--output", str(source / "x"), "--dry-run"]) == 3
    assert "is a file; choose another folder" in capsys.readouterr().err


def test_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tmp_path / "network.safetensors"
    network.write_bytes(to_bytes(narrow_network()))
    image = tmp_path / "p.png"
    image.write_bytes(png(picture(1)))
    arguments = [str(image), "--checkpoint", str(network), "--output", str(tmp_path / "out")]
    assert_announced(tmp_path, predict.main, arguments, capsys)
    assert predict.main([str(tmp_path / "gone.png"), *arguments[1:], "--dry-run"]) == 3
    assert predict.main([*arguments[:2], str(image), *arguments[3:], "--dry-run"]) == 2


@pytest.mark.parametrize("main", [report.main, score.main])
def test_without_a_run_there_is_nothing_to_plan(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--dry-run"]) == 3
    assert "is not committed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    check_target(Storage(), str(tmp_path / "new" / "folder"))
    check_target(Storage(), f"{bucket}/new/folder")
    with pytest.raises(StorageError, match="bucket does not exist"):
        check_target(Storage(), "s3://no-such-bucket-here/x")
    with pytest.raises(StorageError, match="is a file"):
        check_target(Storage(), str(tmp_path / "file" / "folder"))


def test_segmentation_is_estimated_without_ray(tmp_path: Path) -> None:
    arguments = [*write_inputs(str(tmp_path), 3).arguments(), "--dry-run"]
    code = f"import sys, json; from jobs.segment_bucket import main; code = main({json.dumps(arguments)}); "
    code += "assert 'ray' not in sys.modules; sys.exit(code)"
    before = files_below(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^images +3, 3 of them labelled", done.stdout) and "nothing was started" in done.stdout
    assert files_below(tmp_path) == before


def test_the_alias_of_dry_run_fills_the_same_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    class Text:
        def text(self) -> str:
            return ""

    monkeypatch.setattr(
        "pipeline.segmentation.runs.forecast.forecast", lambda config: seen.append(config.plan) or Text()
    )
    inputs = ["--images", "a", "--checkpoint", "b", "--output", "c"]
    assert segment_bucket.main([*inputs, "--dry-run"]) == segment_bucket.main([*inputs, "--plan"]) == 0
    assert seen == [True, True]
