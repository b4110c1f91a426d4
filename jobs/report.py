r"""Write the report of a committed run: a page, a contact sheet, and plots as PNG files.

    ray job submit --working-dir . -- python jobs/report.py s3://bucket/out/x

Works without Ray too: `python jobs/report.py OUTPUT`. Exit codes: 0 written; 2 wrong usage; 3 nothing is committed
there, or the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse


class ReportOptions(WriterOptions):
    """Options of `jobs/report.py`."""

    output: Positional[str]
    """URI of the run, as given to segment_bucket.py --output."""
    images: Annotated[int, Field(ge=1)] = 6
    """Largest number of images on the contact sheet."""


@job
def main(arguments: list[str]) -> None:
    """Write the report of a run, and print the files' URIs."""
    options = parse(ReportOptions, arguments, __doc__)
    if options.dry_run:
        from pipeline.results.dry_run import plan_report

        print(plan_report(options.output, options.images).text())
        return
    from pipeline.results.report.report import write_report

    report = write_report(options.output, images=options.images)
    print(f"report         {report.page}")
    print(f"contact sheet  {report.sheet or 'none: no image was predicted'}")
    print(f"plots          {', '.join(uri.rsplit('/', 1)[-1] for uri in report.plots) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
