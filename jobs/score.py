"""Score a committed run in full: boundary IoU, calibration, IoU, Dice, precision, recall and accuracies.

    ray job submit --working-dir . -- python jobs/score.py s3://bucket/out/x

The job reads the labels again. Works without Ray too: ``python jobs/score.py OUTPUT``. Exit codes: 0 written; 2 wrong
usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.errors import PipelineError
from pipeline.results.scoring.score import score_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a run, print the scores and return the exit code."""
    parser = argparse.ArgumentParser(description="Score a committed run in full, from masks and labels.")
    parser.add_argument("output", help="URI of the run, as given to segment_bucket.py --output")
    options = parser.parse_args(arguments)
    try:
        scoring = score_run(options.output)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(scoring.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
