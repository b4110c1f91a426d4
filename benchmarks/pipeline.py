"""Whole segmentation job compared with its network alone, and with three common ways of writing it.

    python -m benchmarks.pipeline [--images 2000] [--width 0.25] [--slow 400] [--only cost still gpu network]

`cost`     core-milliseconds per image of everything but the network, in one process.
`still`    a mock network that takes no time: images per second of the job on all cores.
`gpu`      a mock GPU, 10 ms per image and no CPU time: share of its rate that the job reaches.
`network`  a real network of a share of VGG-16's width: rate of the job with one actor of one core, with two, … up to
           the number of cores. It is compared with the rate of the network alone on decoded tensors in as many
           processes, measured before and after the job.

`--alone` leaves the three baselines out. Rates of jobs are measured between the first and the last tenth of their
parts. Inputs are 480x360 JPEGs on disk; outputs are palette PNGs and scores in Parquet. The benchmark writes
benchmarks/results/pipeline_*.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import ray
import torch

from benchmarks.baselines import by_data_loader, by_loop, by_ray_data
from benchmarks.mock_network import StandInActor, stand_in, write_images, write_network
from benchmarks.probe import write_results
from model.files.checkpoint import from_bytes
from model.kernels.host_memory import keep_freed_memory
from model.kernels.preparation import prepare
from model.prediction.dense_prediction import network_input
from pipeline.data.images import decode_image
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import Storage
from pipeline.ray_backend.shard_pool import check_resources, run_shards
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.segmenter import Segmenter

_GPU_SECONDS = 0.010
_ROOM = 5 * 2**29


def main() -> None:
    """Run the chosen measurements, and write one file of results for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=400, help="images for a real network")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--only", nargs="*", default=["cost", "still", "gpu", "network"])
    parser.add_argument("--alone", action="store_true", help="without the usual ways")
    options = parser.parse_args()
    ray.init(num_cpus=os.cpu_count(), logging_level="error", log_to_driver=False)
    measures = {"cost": cost, "still": still, "gpu": gpu, "network": network}
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        for what in options.only:
            folder = Path(name) / what
            folder.mkdir()
            content = measures[what](folder, options)
            write_results(f"pipeline_{what}" + (f"_{options.width:g}" if what == "network" else ""), content)


def cost(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure the time per image that everything but the network takes, in one process."""
    images = write_images(folder / "images", min(options.images, 400))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        core, wall = pool.apply(_cost, (images,))
    print(f"outside the network: {core * 1e3:.2f} core-ms per image, {wall * 1e3:.2f} ms by the clock in one process")
    return {"core_seconds_per_image": core, "seconds_per_image": wall}


def _cost(images: Path) -> tuple[float, float]:
    """Return core-seconds and seconds per image of a segmenter with a network that takes no time."""
    torch.set_num_threads(1)
    keep_freed_memory()
    storage = Storage()
    config = SegmentConfig(images=str(images), checkpoint="none", output="none")
    segmenter = Segmenter(stand_in(), config, "run", storage)
    rows = list(build_manifest(storage, str(images)).rows())
    segmenter.segment(rows[:50])
    rounds = []
    for _ in range(5):
        wall = time.perf_counter()
        core = time.process_time()
        segmenter.segment(rows)
        rounds.append(((time.process_time() - core) / len(rows), (time.perf_counter() - wall) / len(rows)))
    return statistics.median(core for core, _ in rounds), statistics.median(wall for _, wall in rounds)


def still(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure the job and the baselines with a network that takes no time, one actor per core."""
    images = write_images(folder / "images", options.images)
    checkpoint = folder / "still.safetensors"
    write_network(checkpoint, width=1 / 64, seconds=0.0)
    return _side_by_side(images, checkpoint, folder, os.cpu_count() or 1, options)


def gpu(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure the job and the baselines with a mock GPU of 10 ms per image and no CPU time; one actor has all cores."""
    images = write_images(folder / "images", options.images)
    checkpoint = folder / "gpu.safetensors"
    write_network(checkpoint, width=1 / 64, seconds=_GPU_SECONDS)
    rates = _side_by_side(images, checkpoint, folder, 1, options)
    pace = 1 / _GPU_SECONDS
    print("; ".join(f"{name} keeps {rate / pace:.3f} of the network's pace" for name, rate in rates.items()))
    return rates | {"pace": pace}


def network(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure the job with a real network and one process per core: on one core, on two, and so on."""
    images = write_images(folder / "images", options.slow)
    checkpoint = folder / "network.safetensors"
    write_network(checkpoint, width=options.width)
    rates: dict[str, float] = {"width": options.width}
    cores = os.cpu_count() or 1
    for count in range(1, cores + 1):
        # Measure the network alone before and after the job, since the machine's speed may drift.
        before = _alone(images, checkpoint, count)
        job = _job(images, checkpoint, folder / f"job-{count}", count, 1.0)
        after = _alone(images, checkpoint, count)
        bare = (before + after) / 2
        rates |= {f"{count} actors": job, f"{count} alone, before": before, f"{count} alone, after": after}
        print(
            f"{count} actors {job:8.2f} images/s, {job / rates['1 actors'] / count:.3f} of {count} times one actor's, "
            f"{job / bare:.3f} of the network alone ({before:.2f} before, {after:.2f} after)"
        )
    if not options.alone:
        usual = _usual(images, checkpoint, folder, cores)
        print("; ".join(f"{name} {rate:.2f} images/s" for name, rate in usual.items()))
        rates |= usual
    return rates


def _alone(images: Path, checkpoint: Path, count: int) -> float:
    """Return images per second of the network alone, summed over `count` processes."""
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return sum(pool.starmap(_bare, [(images, checkpoint)] * count))


def _bare(images: Path, checkpoint: Path) -> float:
    """Return images per second of the prepared network on tensors in memory; runs for 30 s and 8 images at least."""
    torch.set_num_threads(1)
    keep_freed_memory()
    ready = prepare(from_bytes(checkpoint.read_bytes()), _ROOM)
    decoded = [decode_image(path.read_bytes(), max_pixels=10**7) for path in sorted(images.iterdir())[:8]]
    batches = [network_input(ready, image).whole() for image in decoded]
    with torch.inference_mode():
        for batch in batches[:2]:
            ready(batch)
        started = time.perf_counter()
        count = 0
        while time.perf_counter() - started < 30 or count < 8:
            ready(batches[count % len(batches)])
            count += 1
    return count / (time.perf_counter() - started)


def _side_by_side(
    images: Path, checkpoint: Path, folder: Path, actors: int, options: argparse.Namespace
) -> dict[str, float]:
    """Return images per second of the job and of the baselines, which run one after the other."""
    rates = {"this job": _job(images, checkpoint, folder / "job", actors, (os.cpu_count() or 1) / actors)}
    if not options.alone:
        rates |= _usual(images, checkpoint, folder, max(1, (os.cpu_count() or 1) // actors))
    for name, rate in rates.items():
        print(f"{name:<28}{rate:8.2f} images/s  {rate / rates['this job']:6.3f} of this job")
    return rates


def _usual(images: Path, checkpoint: Path, folder: Path, threads: int) -> dict[str, float]:
    """Return images per second of the three baselines."""
    # Ray Data needs a core for reading: without a free one it waits forever.
    by_ray_data(images, checkpoint, folder / "usual", max(1, (os.cpu_count() or 1) - 1))
    return {
        "usual Ray Data": _steady([(path, _rows(path)) for path in (folder / "usual").glob("*.parquet")]),
        "DataLoader, one process": by_data_loader(images, checkpoint, folder / "loader", threads),
        "plain loop, one process": by_loop(images, checkpoint, folder / "loop", threads),
    }


def _job(images: Path, checkpoint: Path, output: Path, actors: int, cpus: float) -> float:
    """Run the segmentation job, and return its images per second."""
    config = SegmentConfig(
        images=str(images),
        checkpoint=str(checkpoint),
        output=str(output),
        actors=actors,
        cpus_per_actor=cpus,
        # Write about 40 parts or more, so that a rate can be computed from their times.
        shard_images=min(64, max(1, len(list(images.iterdir())) // 40)),
    )

    def run(plan: Plan, shards: list[int]) -> None:
        run_shards(plan, shards, StandInActor)

    segment_bucket(config, check_resources, run)
    return _steady([(path, _rows(path)) for path in (output / "predictions").glob("*.parquet")])


def _rows(path: Path) -> int:
    """Return the number of rows of a Parquet file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _steady(files: list[tuple[Path, int]]) -> float:
    """Return rows per second between the first and the last tenth of the files, by their modification times.

    NaN if there are too few files.
    """
    times = sorted((path.stat().st_mtime, rows) for path, rows in files)
    edge = max(1, len(times) // 10)
    kept = times[edge - 1 : len(times) - edge + 1]
    if len(kept) < 2 or kept[-1][0] <= kept[0][0]:
        return float("nan")
    return sum(rows for _, rows in kept[1:]) / (kept[-1][0] - kept[0][0])


if __name__ == "__main__":
    main()
