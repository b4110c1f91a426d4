"""Memory of a driver by the length of its manifest, and of an actor by the number and the size of its images.

    python -m benchmarks.memory [--rows 1000 10000 100000 1000000] [--images 2000] [--side 8192]

The driver lists a bucket (a stand-in server that makes up names), plans and claims a run, and writes its frozen
manifest. The actor segments images of 480x360 one shard after another, then one large image. Each measurement is a
process of its own; what is given is resident memory, in MiB. Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import torch
from PIL import Image

from model.checkpoint import from_bytes, to_bytes
from model.front_end import FrontEndWidths
from model.network import NetworkSpec, dilation8
from pipeline.data.storage import Storage
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.plan import claim, make_plan
from pipeline.segmentation.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results" / "memory.json"
_PAGE, _SHARD = 1000, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, number = options.child
        print(json.dumps({"driver": _driver, "actor": _actor, "large": _large}[kind](int(number))))
        return
    content: dict[str, Any] = {"driver": {}, "actor": {}, "large": {}}
    for rows in options.rows:
        content["driver"][rows] = _measured("driver", rows)
    content["actor"][options.images] = _measured("actor", options.images)
    content["large"][options.side] = _measured("large", options.side)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def _measured(kind: str, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", kind, str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind} {number}: {json.dumps(content)}", flush=True)
    return content


def _driver(rows: int) -> dict[str, Any]:
    """Peak and seconds of planning and claiming a run of so many images."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _listing(rows))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}", "AWS_ACCESS_KEY_ID": "x"}
        os.environ |= {"AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
        config = _config(folder, images="s3://bucket/images")
        started, storage = time.perf_counter(), Storage()
        plan = make_plan(config, storage)
        claim(plan, storage)
        assert plan.manifest.num_rows == rows
        files = len(list(Path(folder, "out", "manifest").iterdir()))
        return {"peak_mib": _peak(), "seconds": round(time.perf_counter() - started, 1), "manifest_files": files}


def _listing(rows: int) -> type[BaseHTTPRequestHandler]:
    """S3's answers to ListObjectsV2 for `rows` objects; in this process, so what it takes is counted in."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            first = int(query.get("continuation-token", ["0"])[0])
            last = min(first + _PAGE, rows)
            entries = "".join(
                f"<Contents><Key>images/camera-{n % 97:02d}/{n:09d}.jpg</Key><Size>{9000 + n}</Size>"
                f"<ETag>&quot;{n:032x}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for n in range(first, last)
            )
            token = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < rows else ""
            more = "true" if last < rows else "false"
            body = (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>bucket</Name><Prefix>images/</Prefix><IsTruncated>{more}</IsTruncated>{token}{entries}"
                "</ListBucketResult>"
            ).encode()
            self.send_response_only(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler


def _actor(images: int) -> dict[str, Any]:
    """Resident memory after each tenth of the images, and at most."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        rows = [_row(folder, index, 480, 360) for index in range(20)]
        segment, after = _segmenter(folder), []
        for start in range(0, images, _SHARD):
            segment([rows[index % len(rows)] for index in range(start, min(start + _SHARD, images))])
            after.append(psutil.Process().memory_info().rss // 2**20)
        return {"after_shards_mib": after[:: max(1, len(after) // 10)], "peak_mib": _peak()}


def _large(side: int) -> dict[str, Any]:
    """Peak of one image of side x side pixels, over what the actor takes for small ones."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        segment = _segmenter(folder)
        small, large = _row(folder, 0, 480, 360), _row(folder, 1, side, side)
        segment([small])
        before, started = _peak(), time.perf_counter()
        segment([large])
        return {"before_mib": before, "peak_mib": _peak(), "seconds": round(time.perf_counter() - started, 1)}


def _segmenter(folder: str) -> Callable[[list[dict[str, Any]]], None]:
    torch.set_num_threads(1)
    config = _config(folder, images=folder)
    segmenter = Segmenter(from_bytes(Path(config.checkpoint).read_bytes()), config, "run", Storage())

    def segment(rows: list[dict[str, Any]]) -> None:
        table = segmenter.segment(rows).table
        assert set(table["status"].to_pylist()) == {"ok"}, table["error_message"]

    return segment


def _row(folder: str, index: int, width: int, height: int) -> dict[str, Any]:
    coarse = np.random.default_rng(index).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    path = Path(folder, f"{index}.jpg")
    path.write_bytes(sink.getvalue())
    info = Storage().info(str(path))
    return {"image_uri": str(path), "label_uri": None, "size": info.size, "version": info.version}


def _config(folder: str, images: str) -> SegmentConfig:
    spec = NetworkSpec(
        ("road", "sky", "tree", "car"), tuple((60 * n, 90, 200) for n in range(4)), (110.0, 115.0, 120.0)
    )
    checkpoint = Path(folder, "network.safetensors")
    if not checkpoint.exists():
        checkpoint.write_bytes(to_bytes(dilation8(spec, FrontEndWidths.vgg16(1 / 32))))
    return SegmentConfig(images=images, checkpoint=str(checkpoint), output=f"{folder}/out", shard_images=_SHARD)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
