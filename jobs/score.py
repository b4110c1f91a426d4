r"""Score a committed run in full: boundary IoU, calibration, IoU, Dice, precision, recall and accuracies.

    ray job submit --working-dir . -- python jobs/score.py s3://bucket/out/x

The job reads the labels again. Works without Ray too: `python jobs/score.py OUTPUT`. Exit codes: 0 written; 2 wrong
usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse


class ScoreOptions(WriterOptions):
    """Options of `jobs/score.py`."""

    output: Positional[str]
    """URI of the run, as given to segment_bucket.py --output."""


@job
def main(arguments: list[str]) -> None:
    """Score a run and print the scores."""
    options = parse(ScoreOptions, arguments, __doc__)
    if options.dry_run:
        from pipeline.results.dry_run import plan_scores

        print(plan_scores(options.output).text())
        return
    from pipeline.results.scoring.score import score_run

    print(score_run(options.output).text())


if __name__ == "__main__":
    sys.exit(main())
