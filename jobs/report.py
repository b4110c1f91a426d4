"""Write the report of a committed run: a page, a contact sheet, and plots as PNG files.

    ray job submit --working-dir . -- python jobs/report.py s3://bucket/out/x

Works without Ray too: ``python jobs/report.py OUTPUT``. Exit codes: 0 written; 2 wrong usage; 3 nothing is
committed there, or the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.errors import PipelineError
from pipeline.results.report.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a run, print the files' URIs and return the exit code."""
    parser = argparse.ArgumentParser(description="Write the report and the contact sheet of a committed run.")
    parser.add_argument("output", help="URI of the run, as given to segment_bucket.py --output")
    parser.add_argument("--images", type=int, default=6, help="images on the contact sheet (default: 6)")
    options = parser.parse_args(arguments)
    if options.images < 1:
        parser.error(f"--images is {options.images}, must be at least 1")
    try:
        report = write_report(options.output, images=options.images)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"report         {report.page}")
    print(f"contact sheet  {report.sheet or 'none: no image was predicted'}")
    print(f"plots          {', '.join(uri.rsplit('/', 1)[-1] for uri in report.plots) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
