"""Demo of the whole system on one machine: a bucket of drawn scenes, training, segmentation and report.

make demo
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FrameType

from demo.cluster import Cluster, local_cluster
from demo.object_store import object_store
from demo.processes import heed_interrupts, signals_deferred
from demo.street.scene import encode_scene
from pipeline.data.storage import Storage, join

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_BUCKET = "s3://street-scenes"
# First seed and number of scenes. The seed ranges are disjoint, so no scene is in two splits.
_TRAIN = (0, 120)
_VAL = (100_000, 12)
_HELD_OUT = (200_000, 36)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--keep", type=Path, default=_ROOT / "demo-output", help="folder for the results")
    options = parser.parse_args(arguments)
    heed_interrupts()
    # Turn SIGTERM into an exception, so that the context managers below stop their processes in order.
    signal.signal(signal.SIGTERM, _stop)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True))
        with _step("starting SeaweedFS and Ray"):
            store = stack.enter_context(object_store(Path(folder)))
            os.environ.update(store.env)
            cluster = stack.enter_context(local_cluster(Path(folder) / "ray.log", cpus=4))
        code = _run(cluster, options.keep)
    print(f"\n{'done' if code == 0 else 'FAILED'} after {time.monotonic() - started:.0f} s; everything is stopped")
    return code


def _run(cluster: Cluster, keep: Path) -> int:
    """Draw the scenes, submit the three jobs, and return 1 if one of them fails, else 0."""
    storage = Storage()
    output = join(_BUCKET, "out")
    with _step("drawing scenes into the bucket"):
        storage.filesystem(_BUCKET)[0].mkdir(_BUCKET.removeprefix("s3://"))
        for prefix, (first, count) in {"train": _TRAIN, "val": _VAL, "held-out": _HELD_OUT}.items():
            _fill(storage, prefix, range(first, first + count))
    train = ["python", "jobs/train.py", "street_scenes", "--data", _BUCKET, "--output", join(_BUCKET, "run")]
    segment = [
        *("python", "jobs/segment_bucket.py", "--images", join(_BUCKET, "held-out", "images")),
        *("--labels", join(_BUCKET, "held-out", "labels"), "--output", output),
        *("--checkpoint", join(_BUCKET, "run", "network.safetensors"), "--shard-images", "12", "--actors", "2"),
    ]
    # Train for fewer steps than the recipe does, so that the demo ends within ten minutes on two cores.
    train += ["--cpus-per-worker", "2", "--front-end.iterations", "700"]
    for script in (train, segment, ["python", "jobs/report.py", output]):
        print(f"\n== ray job submit -- {' '.join(script)}", flush=True)
        if cluster.submit(script, _ROOT) != 0:
            return 1
    _keep(storage, output, keep)
    return 0


def _fill(storage: Storage, prefix: str, seeds: range) -> None:
    """Draw one scene per seed into images/ and labels/ below `prefix` of the bucket, in parallel processes."""
    # Spawn the workers: a fork would copy locks that the storage's threads hold.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool, contextlib.ExitStack() as stack:
        # Defer a signal to the process group until all workers of the pool run. A worker that receives it while it
        # starts could hang, and the pool would hang with it. This callback also cancels the scenes that have not begun.
        # It must wait for the workers itself, because the pool's own shutdown at the end of the block would undo the
        # cancellation.
        stack.callback(pool.shutdown, cancel_futures=True)
        with signals_deferred():
            scenes = pool.map(encode_scene, seeds, chunksize=4)
        for seed, (image, label) in zip(seeds, scenes, strict=True):
            storage.write(join(_BUCKET, prefix, "images", f"{seed:06d}.jpg"), image)
            storage.write(join(_BUCKET, prefix, "labels", f"{seed:06d}.png"), label)


def _keep(storage: Storage, output: str, keep: Path) -> None:
    """Copy the results from the bucket to `keep`, because the object store ends with the demo; `keep` is replaced."""
    shutil.rmtree(keep, ignore_errors=True)
    for prefix, folder in ((output, keep), (join(_BUCKET, "run"), keep / "training")):
        for info in storage.list(prefix):
            target = folder / info.uri.removeprefix(prefix).lstrip("/")
            if "checkpoints" not in target.parts and "ray-train" not in target.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(storage.read(info.uri))
    print("\nresults, copied out of the bucket:")
    for name, path in (
        ("tables", "class_scores.parquet, image_scores/, predictions/, confusion.parquet, errors.parquet"),
        ("contact sheet", "report/contact_sheet.png"),
        ("report", "report/index.html"),
        ("network", "training/network.safetensors"),
    ):
        print(f"  {name:<14}{keep}/{path}")


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Print a description, run the block, and print its duration in seconds."""
    started = time.monotonic()
    print(f"{what} … ", end="", flush=True)
    yield
    print(f"{time.monotonic() - started:.0f} s", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit with the conventional code of a process that a signal ended, 128 + signal number."""
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
