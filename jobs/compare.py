r"""Compare two committed runs over the same images: whether, where and by how much they differ.

    ray job submit --working-dir . -- python jobs/compare.py s3://bucket/out/a s3://bucket/out/b

Works without Ray too: `python jobs/compare.py RUN_A RUN_B`. Exit codes: 0 written, whatever the verdict; 2 wrong usage,
or the runs have other classes or images; 3 nothing is committed there, or the storage failed.
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
from pipeline.options import option


class CompareOptions(WriterOptions):
    """Options of `jobs/compare.py`."""

    run_a: Positional[str]
    """URI of the run that is compared with: the older network, say."""
    run_b: Positional[str]
    """URI of the run that is judged."""
    overlap: bool = False
    """Compare the images that both runs have, if not all are the same."""
    output: Annotated[str | None, option("URI", "RUN_B/comparison/<run_id of A>")] = None
    """URI of a folder for the tables and the page."""
    images: Annotated[int, Field(ge=0)] = 4
    """Largest number of images of each kind on the page."""


@job
def main(arguments: list[str]) -> None:
    """Compare the two runs, write the comparison, and print the verdict."""
    options = parse(CompareOptions, arguments, __doc__)
    if options.dry_run:
        from pipeline.results.dry_run import plan_comparison

        print(plan_comparison(options.run_a, options.run_b, options.output, overlap=options.overlap).text())
        return
    from pipeline.results.comparison.compare import compare_runs, verdict_text
    from pipeline.results.comparison.write import write_comparison

    comparison = compare_runs(options.run_a, options.run_b, overlap=options.overlap, shown=options.images)
    page = write_comparison(comparison, options.output)
    print(verdict_text(comparison))
    print(f"written    {page}")


if __name__ == "__main__":
    sys.exit(main())
