"""Compare two committed runs over the same images: whether, where and by how much they differ.

    ray job submit --working-dir . -- python jobs/compare.py s3://bucket/out/a s3://bucket/out/b

Works without Ray too: ``python jobs/compare.py RUN_A RUN_B``. Exit codes: 0 written, whatever the verdict; 2 wrong
usage, or the runs have other classes or images; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.errors import PipelineError
from pipeline.results.comparison.compare import compare_runs
from pipeline.results.comparison.verdict import verdict_text
from pipeline.results.comparison.write import write_comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two runs, write the comparison, print the verdict and return the exit code."""
    parser = argparse.ArgumentParser(description="Compare two committed runs over the same images.")
    parser.add_argument("run_a", help="URI of the run that is compared with: the older network, say")
    parser.add_argument("run_b", help="URI of the run that is judged")
    parser.add_argument("--overlap", action="store_true", help="compare the images that both have, if not all are")
    parser.add_argument("--output", help="URI of a folder (default: RUN_B/comparison/<run_id of A>)")
    parser.add_argument("--images", type=int, default=4, help="images of each kind on the page (default: 4)")
    options = parser.parse_args(arguments)
    if options.images < 0:
        parser.error(f"--images is {options.images}, must be 0 or more")
    try:
        comparison = compare_runs(options.run_a, options.run_b, overlap=options.overlap, shown=options.images)
        page = write_comparison(comparison, options.output)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(verdict_text(comparison))
    print(f"written    {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
