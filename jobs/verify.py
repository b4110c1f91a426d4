r"""Check a committed run independently: recompute every number from the masks and the labels.

    ray job submit --working-dir . -- python jobs/verify.py s3://bucket/out/x

Works without Ray too: `python jobs/verify.py OUTPUT`. Exit codes: 0 sound; 1 problems found, each printed; 2 wrong
usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import Options, job, parse
from pipeline.errors import ExitCode


class VerifyOptions(Options):
    """Options of `jobs/verify.py`."""

    output: Positional[str]
    """URI of the run, as given to segment_bucket.py --output."""


@job
def main(arguments: list[str]) -> ExitCode:
    """Verify a run and print the verdict."""
    options = parse(VerifyOptions, arguments, __doc__)
    from pipeline.results.verify import verify

    verdict = verify(options.output)
    print(verdict.text())
    return ExitCode.DONE if verdict.ok else ExitCode.PROBLEMS_FOUND


if __name__ == "__main__":
    sys.exit(main())
