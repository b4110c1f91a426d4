"""The command `dilated-context`: the jobs under one name, for one's own machine.

    dilated-context train|segment|predict|report|score|verify|compare|export|runs|paint-labels|import-network [options]

Each word runs the job of that name with the options behind it, and imports nothing of the others. On a cluster, submit
the jobs themselves: `ray job submit --working-dir . -- python jobs/train.py …`. Exit codes are the job's own; 2 for an
unknown command.
"""

from __future__ import annotations

import importlib
import sys

from pipeline.errors import ExitCode

__all__ = ["main"]

_JOBS = {
    "train": "train",
    "segment": "segment_bucket",
    "predict": "predict",
    "report": "report",
    "score": "score",
    "verify": "verify",
    "compare": "compare",
    "export": "export",
    "runs": "runs",
    "paint-labels": "paint_labels",
    "import-network": "import_network",
}


def main() -> int:
    """Run the job that the first argument names, with the arguments behind it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(
            f"usage: dilated-context COMMAND [options]\ncommands: {', '.join(_JOBS)}\nCOMMAND --help lists its options"
        )
        return ExitCode.DONE
    if name not in _JOBS:
        print(f"error: unknown command {name!r}: choose one of {', '.join(_JOBS)}", file=sys.stderr)
        return ExitCode.WRONG_USAGE
    # The job sees its own options alone, and its name in messages about usage.
    sys.argv = [f"dilated-context {name}", *sys.argv[2:]]
    exit_code: int = importlib.import_module(f"jobs.{_JOBS[name]}").main()
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
