"""Tests of the demo's cluster: it accepts jobs only with the token, and leaves no process behind."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from demo.cluster import local_cluster

SCRIPT = "import ray; ray.init(); print('cpus', ray.cluster_resources()['CPU']); raise SystemExit({code})"


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_jobs_run_with_the_token_and_everything_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Submit from an empty folder, so that the job's output does not depend on this repository's size.
    work = tmp_path / "work"
    work.mkdir()
    before = descendants()
    with local_cluster(tmp_path / "ray.log", cpus=3) as cluster:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=20)
        assert refused.value.code in (401, 403)
        started = descendants() - before
        assert cluster.submit(["python", "-c", SCRIPT.format(code=0)], work) == 0
        assert "cpus 3.0" in capfd.readouterr().out
        assert cluster.submit(["python", "-c", SCRIPT.format(code=3)], work) != 0
        started |= descendants() - before
    assert started
    assert not [pid for pid in started if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
