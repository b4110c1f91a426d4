r"""Segment a bucket of images into Parquet tables.

    ray job submit --working-dir . -- python jobs/segment_bucket.py \
        --images s3://b/in --checkpoint s3://b/runs/r1/network.safetensors --output s3://b/out/x \
        [--labels s3://b/lab] [--since s3://b/out/w] [--dry-run]

Without a cluster, `python jobs/segment_bucket.py …` starts Ray on this machine. Exit codes: 0 committed; 2 wrong usage
or configuration; 3 too many images failed or the run is incomplete, nothing is committed and all work is kept; 4 the
output belongs to another run.
"""

from __future__ import annotations

import sys
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import job, parse
from pipeline.segmentation.config import SegmentConfig


@job
def main(arguments: list[str]) -> None:
    """Segment the bucket and print the scores, or print the forecast with --dry-run."""
    config = parse(SegmentConfig, arguments, __doc__)
    if config.plan:
        from pipeline.segmentation.runs.forecast import forecast

        print(forecast(config).text())
        return
    from pipeline.ray_backend.entry_points import segment_bucket
    from pipeline.results.console import run_text
    from pipeline.results.tables import Run

    segment_bucket(config)
    print(run_text(Run(config.output)))


if __name__ == "__main__":
    sys.exit(main())
