"""Time and memory of `jobs/verify.py` and `jobs/compare.py` on runs of many images.

    python -m benchmarks.checks --labelled 20000 200000 --unlabelled 1000000

The runs are synthetic: images and masks of 8x8 pixels, two classes, files of 64 images. Without labels, verification
reads fewer files, and a comparison has no scores. Each job runs in a process of its own. The benchmark writes
benchmarks/results/checks.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.probe import run_job, write_results
from benchmarks.synthetic_run import write_made_up_run


def main() -> None:
    """Measure both jobs for each number of images, and write checks.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("labelled", "unlabelled"):
        parser.add_argument(f"--{kind}", type=int, nargs="+", default=[], help="numbers of images")
    options = vars(parser.parse_args())
    content: dict[str, Any] = {}
    for kind, sizes in options.items():
        for images in sizes:
            content.setdefault(kind, {})[images] = found = _measure(images, labelled=kind == "labelled")
            print(f"{images} {kind} images: {found}", flush=True)
    write_results("checks", content)


def _measure(images: int, *, labelled: bool) -> dict[str, Any]:
    """Return figures of the verification of a run of `images` images, and of its comparison with another run."""
    with tempfile.TemporaryDirectory(prefix="checks-") as folder:
        first, second = Path(folder, "a"), Path(folder, "b")
        for run, inputs in ((first, None), (second, first)):
            run.mkdir()
            write_made_up_run(run, images, side=8, classes=2, labelled=labelled, inputs=inputs)
        return {"verify": run_job("verify", str(first)), "compare": run_job("compare", str(first), str(second))}


if __name__ == "__main__":
    main()
