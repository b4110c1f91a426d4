"""Time and memory of a report on a run of many images.

    python -m benchmarks.report [--images 100000]

The run is synthetic: tables as the segmentation job writes them, of VOC's 21 classes, in files of 64 images that share
one mask. `jobs/report.py` then reports on it in a process of its own. The benchmark writes
benchmarks/results/report.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.probe import run_job, write_results
from benchmarks.synthetic_run import SHARD_IMAGES, write_made_up_run


def main() -> None:
    """Measure a report for each number of images, and write report.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 100_000])
    content: dict[str, Any] = {"by_images": {}}
    for images in parser.parse_args().images:
        with tempfile.TemporaryDirectory(prefix="report-") as folder:
            write_made_up_run(Path(folder), images)
            content["by_images"][images] = measured = {"files": -(-images // SHARD_IMAGES), **_report(folder)}
        print(f"{images} images: {measured}", flush=True)
    write_results("report", content)


def _report(output: str) -> dict[str, Any]:
    """Return time and peak resident memory of the whole report process, and the sizes of the files that it wrote."""
    measured = run_job("report", output)
    return {**measured, "bytes": {path.name: path.stat().st_size for path in sorted(Path(output, "report").iterdir())}}


if __name__ == "__main__":
    main()
