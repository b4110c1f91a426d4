r"""List the runs below a prefix, with location, progress and scores.

    ray job submit --working-dir . -- python jobs/runs.py s3://bucket/out

Works without Ray too: `python jobs/runs.py PREFIX`. Exit codes: 0 listed, even if there is none; 2 wrong usage; 3 the
storage failed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import Options, job, parse


class RunsOptions(Options):
    """Options of `jobs/runs.py`."""

    prefix: Positional[str]
    """URI of a folder that holds outputs of segment_bucket.py."""
    depth: Annotated[int, Field(ge=0)] = 4
    """Number of folder levels to search below the prefix."""
    as_json: Annotated[bool, arg(name="json")] = False
    """Print one JSON object per line instead of a table."""


@job
def main(arguments: list[str]) -> None:
    """Find the runs below a prefix, and print them."""
    options = parse(RunsOptions, arguments, __doc__)
    from pipeline.data.storage import Storage
    from pipeline.results.runs import find_runs, runs_text

    runs = list(find_runs(Storage(), options.prefix, options.depth))
    if options.as_json:
        for run in runs:
            print(json.dumps({**asdict(run), "state": run.state}, ensure_ascii=False))
    else:
        print(runs_text(runs) if runs else f"no run lies at or up to {options.depth} folders below {options.prefix}")


if __name__ == "__main__":
    sys.exit(main())
