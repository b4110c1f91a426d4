"""Tests of docs/your_data.md, command by command, on a miniature data set."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from demo.cluster import Cluster
from jobs import export, paint_labels, report
from model.files.checkpoint import from_bytes
from pipeline.data.storage import join
from pipeline.results.tables import Run
from tests.job_helpers import ROOT, run_job
from tests.segmentation.support import png
from tests.shared import STORAGE
from tests.training.own_data import NAMES, scene, write_photos

PAGE = (ROOT / "docs/your_data.md").read_text()
# Few steps and a small network, which take seconds instead of an evening.
SHORT = ["--front-end.iterations", "4", "--joint.iterations", "2"]
NARROW = ["--network.scale", "0.03125", "--network.fc", "8"]


def commands(bucket: str) -> list[list[str]]:
    """Return script and arguments of every command of the page."""
    blocks = re.findall(r"^```\n(ray job submit .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").replace("s3://bucket", bucket).strip().splitlines()
    return [shlex.split(line)[shlex.split(line).index("python") + 1 :] for line in lines]


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_evening(cluster: Cluster, bucket: str) -> None:
    write_photos(join(bucket, "photos"), name="{}.png")
    for seed in range(200, 208):
        STORAGE.write(join(bucket, "new", f"n{seed}.png"), png(scene(seed)[0]))
    look, train, segment, show, write_back, to_correct, paint, again = commands(bucket)
    done = run_job(cluster, "train", [*look[1:], *SHORT, *NARROW])
    assert done.code == 0, done.err
    for words in (*NAMES, "all images have 36×52 pixels", "front_end: 2 crops of 500 pixels", "dry-run/index.html"):
        assert words in done.out
    left = [info.uri.removeprefix(join(bucket, "runs/first/")) for info in STORAGE.list(join(bucket, "runs/first"))]
    assert left == [f"dry-run/{name}" for name in ("front_end.png", "index.html", "joint.png")]
    for script, *arguments in (([*train, *SHORT, *NARROW]), segment):
        done = run_job(cluster, Path(script).stem, arguments)
        assert done.code == 0, done.err
    run = Run(join(bucket, "out/first"))
    assert run.success["images"] == 8 and tuple(run.classes) == NAMES
    for job, (_, *arguments) in ((report, show), (export, write_back), (export, to_correct)):
        assert job.main(arguments) == 0
    assert all(name in STORAGE.read(join(bucket, "out/first/report/index.html")).decode() for name in NAMES)
    assert len(STORAGE.list(join(bucket, "masks/first"))) == 8
    _correct(bucket)
    assert paint_labels.main(paint[1:]) == 0
    done = run_job(cluster, "train", [*again[1:], *SHORT])
    assert done.code == 0, done.err
    assert "first weights: " in done.out and "of which front end, context module" in done.out
    provenance = from_bytes(STORAGE.read(join(bucket, "runs/second/network.safetensors"))).spec.provenance
    assert provenance["weights"]["copied"] == ["front end", "context module"]


def _correct(bucket: str) -> None:
    """Do an annotator's work in Label Studio: accept every brush, and export the project."""
    tasks = json.loads(STORAGE.read(join(bucket, "to-correct/tasks.json")))
    assert len(tasks) == 5
    for task in tasks:
        (prediction,) = task.pop("predictions")
        task["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]
    STORAGE.write(join(bucket, "corrected.json"), json.dumps(tasks).encode())


def test_its_classes_files_are_read_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    from pipeline.data.class_files import read_classes

    for language, name in (("csv", "classes.csv"), ("json", "classes.json")):
        (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(text)
        space = read_classes(STORAGE, str(tmp_path / name))
        assert {"background", "blight"} <= set(space.classes) and space.encoding is not None
        assert space.encoding.ignored == (255,)
    for target in re.findall(r"\]\(([^)#]+\.md)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
