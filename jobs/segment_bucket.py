"""Segment a bucket of images into Parquet tables.

    ray job submit --working-dir . -- python jobs/segment_bucket.py \
        --images s3://b/in --checkpoint s3://b/runs/r1/network.safetensors --output s3://b/out/x [--labels s3://b/lab] \
        [--since s3://b/out/w] [--plan]

Without a cluster, `python jobs/segment_bucket.py …` starts Ray on this machine. Exit codes: 0 committed; 2 wrong usage
or configuration; 3 too many images failed or the run is incomplete, nothing is committed and all work is kept; 4 the
output belongs to another run.
"""

from __future__ import annotations

import sys
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command_line import connect, job, parse
from pipeline.data.storage import Storage
from pipeline.ray_backend.shard_pool import check_resources, run_shards
from pipeline.results.console import class_table
from pipeline.results.tables import Run
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.forecast import forecast
from pipeline.segmentation.runs.run import segment_bucket


def main(arguments: list[str]) -> int:
    """Segment the bucket, or print the forecast with --plan; print the scores and return the exit code."""
    config = parse(SegmentConfig, arguments, __doc__)
    if config.plan:
        print(forecast(config, Storage()).text())
        return 0
    connect()
    success = segment_bucket(config, check_resources, run_shards)
    # NaN becomes None, which the table prints as a dash.
    scores = Run(config.output).class_scores().astype(object)
    rows = scores.where(scores.notna(), None).to_dict("records")
    print(class_table(rows, success["mean_iou"]))
    print(f"{success['images']} images, {success['errors']} failed; tables in {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(job(main))
