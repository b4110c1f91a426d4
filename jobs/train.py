r"""Train a dilated-convolution network by recipe: front end, context module, joint.

    ray job submit --working-dir . -- python jobs/train.py RECIPE --data s3://b/camvid --output s3://b/runs/r1 \
        [--workers 2] [--front-end.iterations 1000 …] [--dry-run]

RECIPE is `custom` for your own classes and photographs (docs/your_data.md). An interrupted run continues from its
newest checkpoint if it is submitted again. A run writes network.safetensors, one network per stage in stages/,
metrics.json and TensorBoard files. Exit codes: 0 trained; 2 wrong usage or configuration; 3 the run did not end, submit
it again; 4 the output belongs to another run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import job, parse, wrap
from pipeline.errors import ConfigError, ExitCode
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.registry import describe_recipes, recipe


@job
def main(arguments: list[str]) -> ExitCode | None:
    """Train by a recipe, or check data and workers and do a dry run with --dry-run."""
    if not arguments or arguments[0].startswith("-"):
        print(f"{wrap(__doc__ or '')}\nRecipes (options of one: jobs/train.py RECIPE --help):\n{describe_recipes()}")
        return ExitCode.DONE if arguments[:1] in (["--help"], ["-h"]) else ExitCode.WRONG_USAGE
    if arguments.count("--data") > 1:
        # The parser would use the last one only and silently train on a part of the data.
        raise ConfigError("--data is given more than once: name all data sets after one, as in --data A B")
    missing = {"data": tyro.MISSING, "output": tyro.MISSING}
    default = TrainConfig.model_construct(**missing, recipe=recipe(arguments[0]))
    config = parse(TrainConfig, arguments[1:], __doc__, default, program=f"{sys.argv[0]} {arguments[0]}")
    from pipeline.ray_backend.entry_points import train

    ended_before = not train(config)
    if config.dry_run:
        return None
    if ended_before:
        print("this run has ended already: nothing to do")
    print(f"network in {config.output.rstrip('/')}/network.safetensors")
    return None


if __name__ == "__main__":
    sys.exit(main())
