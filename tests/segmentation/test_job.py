"""Tests of `jobs/segment_bucket.py` on a real cluster and a real bucket: sizes, exit codes, output."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from demo.cluster import Cluster
from pipeline.data.storage import join
from pipeline.results.tables import Run
from tests.job_helpers import ROOT, run_job
from tests.segmentation.support import label, write_inputs
from tests.shared import STORAGE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
JOB = "segment_bucket"


def test_a_thousand_images(cluster: Cluster, bucket: str) -> None:
    inputs = write_inputs(bucket, 1000, bad=(17, 500))
    done = run_job(cluster, JOB, inputs.arguments(shard_images=64), seconds=360)
    assert done.code == 0, done.err
    run = Run(join(bucket, "out"))
    predictions = run.predictions(["image_uri", "status"])
    assert predictions["image_uri"].tolist() == [join(bucket, "images", f"{i:05d}.png") for i in range(1000)]
    assert np.flatnonzero(predictions["status"] == "error").tolist() == [17, 500]
    uri = join(bucket, "images", "00998.png")
    of_image = run.image_scores().query("image_uri == @uri")
    mask = run.mask(uri)
    ids = label(998)
    assert of_image["intersection"].tolist() == [((mask == c) & (ids == c)).sum() for c in range(4)]
    assert "1000 images, 2 failed" in done.out and re.search(r"^mean +\d", done.out, re.MULTILINE)
    assert re.search(r"1000/1000 images \(100%\), 2 failed, [\d.]+ images/s, 0:00 left", done.err)
    assert "\r" not in done.err


def test_one_image_through_ray_job_submit(cluster: Cluster, bucket: str, capfd: pytest.CaptureFixture[str]) -> None:
    inputs = write_inputs(bucket, 1)
    assert cluster.submit(["python", "jobs/segment_bucket.py", *inputs.arguments(actors=None)], ROOT) == 0
    out = capfd.readouterr().out
    assert "1 images, 0 failed" in out and "core_worker" not in out
    assert len(Run(join(bucket, "out")).predictions()) == 1


def test_no_image(cluster: Cluster, bucket: str) -> None:
    inputs = write_inputs(bucket, 0)
    done = run_job(cluster, JOB, [*inputs.arguments(labels=None), "--allow-empty"])
    assert done.code == 0, done.err
    assert Run(join(bucket, "out")).success["images"] == 0


def test_too_many_failures_exit_3_and_another_run_4(cluster: Cluster, bucket: str) -> None:
    inputs = write_inputs(bucket, 4, bad=(2,))
    failed = run_job(cluster, JOB, inputs.arguments())
    assert failed.code == 3 and "1 of 4 images failed" in failed.err
    other = run_job(cluster, JOB, inputs.arguments(confidence_maps=None, shard_images=2))
    assert other.code == 4 and "shard_images was 3, now 2" in other.err
    again = run_job(cluster, JOB, inputs.arguments(max_error_fraction=0.5))
    assert again.code == 0 and json.loads(STORAGE.read(join(bucket, "out", "_SUCCESS.json")))["errors"] == 1


def test_more_actors_than_the_cluster_holds_exit_2_and_nothing_is_written(cluster: Cluster, bucket: str) -> None:
    inputs = write_inputs(bucket, 2)
    done = run_job(cluster, JOB, inputs.arguments(actors=50))
    assert done.code == 2 and "at most 6 do" in done.err, done.err
    assert "Traceback" not in done.err
    assert STORAGE.list(join(bucket, "out")) == []
