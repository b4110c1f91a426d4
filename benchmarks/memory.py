"""Memory of an actor by the number and the size of its images; for a driver's memory see `benchmarks.scale`.

    python -m benchmarks.memory [--images 2000] [--side 8192]

The actor segments images of 480x360 one shard after another, then one large image. Each measurement runs in a process
of its own; the figures are resident memory in MiB. The benchmark writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from model.files.checkpoint import from_bytes, to_bytes
from model.networks.dilated.networks import dilation8
from model.networks.front_end import FrontEndWidths
from model.networks.network import NetworkSpec
from pipeline.data.storage import Storage
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results" / "memory.json"
_SHARD = 64


def main() -> None:
    """Run both measurements and write memory.json; with `--child`, run one of them and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, number = options.child
        print(json.dumps({"actor": _actor, "large": _large}[kind](int(number))))
        return
    content: dict[str, Any] = {"actor": {}, "large": {}}
    content["actor"][options.images] = _measured("actor", options.images)
    content["large"][options.side] = _measured("large", options.side)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def _measured(kind: str, number: int) -> dict[str, Any]:
    """Run one measurement in a process of its own, and return its figures."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", kind, str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {number}: {json.dumps(content)}", flush=True)
    return content


def _actor(images: int) -> dict[str, Any]:
    """Return resident memory in MiB at about ten points of the run, and its peak."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        rows = [_row(folder, index, 480, 360) for index in range(20)]
        segment = _segmenter(folder)
        after = []
        for start in range(0, images, _SHARD):
            segment([rows[index % len(rows)] for index in range(start, min(start + _SHARD, images))])
            after.append(psutil.Process().memory_info().rss // 2**20)
        return {"after_shards_mib": after[:: max(1, len(after) // 10)], "peak_mib": _peak()}


def _large(side: int) -> dict[str, Any]:
    """Return the peak memory in MiB before and after one image of side x side pixels, and its time in seconds."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        segment = _segmenter(folder)
        small = _row(folder, 0, 480, 360)
        large = _row(folder, 1, side, side)
        # A small image first, so that the peak before the large one includes everything that any image needs.
        segment([small])
        before = _peak()
        started = time.perf_counter()
        segment([large])
        return {"before_mib": before, "peak_mib": _peak(), "seconds": round(time.perf_counter() - started, 1)}


def _segmenter(folder: str) -> Callable[[list[dict[str, Any]]], None]:
    """Return a function that segments rows on one thread, and fails unless all succeed."""
    torch.set_num_threads(1)
    config = _config(folder, images=folder)
    segmenter = Segmenter(from_bytes(Path(config.checkpoint).read_bytes()), config, "run", Storage())

    def segment(rows: list[dict[str, Any]]) -> None:
        table = segmenter.segment(rows).table
        assert set(table["status"].to_pylist()) == {"ok"}, table["error_message"]

    return segment


def _row(folder: str, index: int, width: int, height: int) -> dict[str, Any]:
    """Write a JPEG of smooth random colors, and return its manifest row."""
    coarse = np.random.default_rng(index).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    path = Path(folder, f"{index}.jpg")
    path.write_bytes(sink.getvalue())
    info = Storage().info(str(path))
    return {"image_uri": str(path), "label_uri": None, "size": info.size, "version": info.version}


def _config(folder: str, images: str) -> SegmentConfig:
    """Return the configuration of the run; write its network, 1/32 of VGG-16's width, if it is not there."""
    spec = NetworkSpec(
        ("road", "sky", "tree", "car"), tuple((60 * n, 90, 200) for n in range(4)), (110.0, 115.0, 120.0)
    )
    checkpoint = Path(folder, "network.safetensors")
    if not checkpoint.exists():
        checkpoint.write_bytes(to_bytes(dilation8(spec, FrontEndWidths.vgg16(1 / 32))))
    return SegmentConfig(images=images, checkpoint=str(checkpoint), output=f"{folder}/out", shard_images=_SHARD)


def _peak() -> int:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
