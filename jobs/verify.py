"""Check a committed run independently: recompute every number from the masks and the labels.

    ray job submit --working-dir . -- python jobs/verify.py s3://bucket/out/x

Works without Ray too: ``python jobs/verify.py OUTPUT``. Exit codes: 0 sound; 1 problems found, each printed;
2 wrong usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.errors import PipelineError
from pipeline.results.verify import verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a run, print the verdict and return the exit code."""
    parser = argparse.ArgumentParser(description="Check a committed run from first principles.")
    parser.add_argument("output", help="URI of the run, as given to segment_bucket.py --output")
    options = parser.parse_args(arguments)
    try:
        verdict = verify(options.output)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(verdict.text())
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
