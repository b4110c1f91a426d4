"""Tests of `jobs/train.py` on a real cluster and a real bucket: two workers, killed and resumed, then segmentation."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from demo.cluster import Cluster
from pipeline.data.storage import join
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.schema import Recipe
from tests.job_helpers import ROOT, await_condition, await_line, driver, finish, joined_node, ray_processes, run_job
from tests.shared import STORAGE
from tests.training.support import assert_same_training, run_spawned, write_data

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
STAGES = ("front-end", "context", "joint")


def arguments(root: str, output: str, *, workers: int = 2, iterations: int = 6, **changes: object) -> list[str]:
    """Return the options of the demo's recipe, narrowed so that it takes seconds."""
    options: dict[str, object] = {
        "data": root,
        "output": join(root, output),
        "workers": workers,
        "network.scale": 1 / 32,
        "network.fc": 8,
        "checkpoint-every": 2,
        "validate-every": 1000,
        **{f"{stage}.iterations": iterations for stage in STAGES},
        **{f"{stage}.batch": 3 for stage in STAGES},
        **{f"{stage}.crop": 404 for stage in STAGES},
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return ["street_scenes", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


def test_one_worker_submitted_twice(cluster: Cluster, bucket: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Segmentation with a network that a job has trained is tested in tests/test_your_data_docs.py."""
    write_data(bucket)
    command = arguments(bucket, "run", workers=1)
    assert cluster.submit(["python", "jobs/train.py", *command], ROOT) == 0
    out = capfd.readouterr().out
    for words in ("stage front_end: 6 iterations", "joint 6/6", "images/s", "min left", "validation on 3 images"):
        assert words in out
    again = run_job(cluster, "train", command)
    assert again.code == 0 and "nothing to do" in again.out
    other = run_job(cluster, "train", [*command, "--seed", "5"])
    assert other.code == 4 and "seed was 0, now 5" in other.err
    run = join(bucket, "run")
    names = {info.uri.removeprefix(f"{run}/").split("/")[0] for info in STORAGE.list(run)}
    assert {"recipe.json", "metrics.json", "network.safetensors", "stages", "tensorboard", "checkpoints"} <= names


def test_two_workers_killed_at_any_level_end_as_two_undisturbed(cluster: Cluster, bucket: str) -> None:
    """A worker dies and is replaced; the driver is terminated, then killed, and each time submitted again.

    The undisturbed workers run without Ray.
    """
    write_data(bucket)
    # The last stage is long enough that the driver is killed during it, even on a busy machine.
    command = arguments(bucket, "run", iterations=24, **{"context.iterations": 0, "joint.iterations": 120})

    def reached(stage: int) -> bool:
        names = [Path(info.uri).name for info in STORAGE.list(join(bucket, "run", "checkpoints"))]
        return any(name.startswith(f"{stage:02d}") and "0000000" not in name for name in names)

    with driver(cluster, "train", command) as process:
        await_condition(lambda: reached(0), process, 150)
        victims = ray_processes("RayTrainWorker")
        assert len(victims) == 2
        victims[1].kill()
        second = run_job(cluster, "train", command)
        assert second.code == 4 and re.search(r"driver \d+ of", second.err) and "is at work on this run" in second.err
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 143
    with driver(cluster, "train", command) as process:
        await_condition(lambda: reached(3), process, 200)
        process.kill()
        finish(process)
    assert not STORAGE.exists(join(bucket, "run", "network.safetensors"))
    again = run_job(cluster, "train", command)
    assert again.code == 0 and "resuming stage" in again.out, again.err
    claimed = json.loads(STORAGE.read(join(bucket, "run", "recipe.json")))
    undisturbed = TrainConfig(data=bucket, output=join(bucket, "undisturbed"), recipe=Recipe(**claimed["recipe"]))
    run_spawned(undisturbed, workers=2)
    assert_same_training(join(bucket, "run"), join(bucket, "undisturbed"))


def test_machines_that_come_are_used_and_those_that_go_are_left_in_time(
    cluster: Cluster, bucket: str, tmp_path: Path
) -> None:
    """An extra checkpoint is written first in both cases, and training continues from it."""
    write_data(bucket)
    # Two workers of four CPUs do not fit the six of the head node.
    changes = {"context.iterations": 0, "joint.iterations": 0, "checkpoint_every": 10_000}
    command = arguments(bucket, "run", iterations=500, min_workers=1, cpus_per_worker=4, **changes)
    with driver(cluster, "train", command) as process:
        await_line(process, "stage front_end: 500 iterations")
        assert len(ray_processes("RayTrainWorker")) == 1
        with joined_node(cluster, tmp_path, cpus=4) as node:
            await_line(process, "stage front_end: 500 iterations")
            assert len(ray_processes("RayTrainWorker")) == 2
            node.announce_preemption()
            await_line(process, "stage front_end: 500 iterations")
        done = finish(process)
    assert done.code == 0, done.err
    assert done.err.count("the workers are to be regrouped") == 2 and "failure 1" not in done.err
    assert "front_end 500/500" in done.out


def test_a_bad_training_image_exits_2_at_the_first_attempt(cluster: Cluster, bucket: str) -> None:
    write_data(bucket)
    STORAGE.write(join(bucket, "train/images/003.png"), b"no picture")
    done = run_job(cluster, "train", arguments(bucket, "run"))
    assert done.code == 2 and "003.png cannot be trained on" in done.err, done.err
    assert "failure 1" not in done.err


def test_silence_ends_a_job_that_says_what_it_waits_for(cluster: Cluster, bucket: str) -> None:
    """Workers cannot start within the allowed second."""
    write_data(bucket)
    done = run_job(cluster, "train", arguments(bucket, "run", no_progress_minutes=1 / 60))
    assert done.code == 3 and "no step was taken and no image validated in 0.0166667 minutes" in done.err, done.err


def test_more_workers_than_the_cluster_holds_exit_2_and_nothing_is_written(cluster: Cluster, bucket: str) -> None:
    write_data(bucket, train=1, val=1)
    done = run_job(cluster, "train", arguments(bucket, "run", workers=90))
    assert done.code == 2 and "90 workers of 1 CPUs" in done.err and "Traceback" not in done.err
    assert STORAGE.list(join(bucket, "run")) == []
