"""List the runs below a prefix, with location, progress and scores.

    ray job submit --working-dir . -- python jobs/runs.py s3://bucket/out

Works without Ray too: ``python jobs/runs.py PREFIX``. With ``--json`` it prints one JSON object per line. Exit codes:
0 listed, even if there is none; 2 wrong usage; 3 the storage failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.data.storage import Storage
from pipeline.errors import PipelineError
from pipeline.results.runs import find_runs, runs_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the runs below a prefix, print them and return the exit code."""
    parser = argparse.ArgumentParser(description="List the runs below a prefix.")
    parser.add_argument("prefix", help="URI of a folder that holds outputs of segment_bucket.py")
    parser.add_argument("--depth", type=int, default=4, help="how many folders deep to look (default: 4)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    options = parser.parse_args(arguments)
    if options.depth < 0:
        parser.error(f"--depth is {options.depth}, must be 0 or more")
    try:
        runs = list(find_runs(Storage(), options.prefix, options.depth))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        for run in runs:
            print(json.dumps({**asdict(run), "state": run.state}, ensure_ascii=False))
    else:
        print(runs_text(runs) if runs else f"no run lies at or up to {options.depth} folders below {options.prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
