"""Submission of a run from start to end: plan, claim, missing shards, commit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectMissing
from pipeline.results.tables import SUCCESS
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.claim import claim
from pipeline.segmentation.runs.commit import commit
from pipeline.segmentation.runs.plan import Plan, make_plan
from pipeline.segmentation.runs.shards import finished_shards

__all__ = ["segment_bucket"]

logger = logging.getLogger(__name__)


def segment_bucket(
    config: SegmentConfig,
    check: Callable[[SegmentConfig], object],
    run_shards: Callable[[Plan, list[int]], None],
    storage: Storage | None = None,
) -> dict[str, Any]:
    """Segment the images that have no result yet, and commit the run.

    Args:
        config: Configuration of the run.
        check: Function that refuses a cluster that is too small, before anything is written.
        run_shards: Function that writes the parts of the given shards.
        storage: Storage for everything that the driver reads and writes; None: default retries.

    Returns:
        Content of `_SUCCESS.json`.

    Raises:
        PipelineError: If the run cannot be planned, executed or committed; `pipeline.errors` lists the kinds.
    """
    storage = storage or Storage()
    plan = make_plan(config, storage)
    check(config)
    # The claim comes before any look at parts, so that files of another run are refused and never counted.
    claim(plan, storage)
    committed = _committed(storage, config.output)
    if committed is not None:
        logger.info("run %s is committed already: nothing to do", plan.run_id)
        return committed
    # An interrupted submission resumes here: parts of earlier submissions of the same run are final.
    finished = finished_shards(storage, config.output, plan.identity)
    missing = [shard for shard in range(plan.shards) if shard not in finished]
    logger.info(
        "run %s: %d images in %d shards, %d of them finished before",
        *(plan.run_id, plan.manifest.num_rows, plan.shards, len(finished)),
    )
    if missing:
        run_shards(plan, missing)
    return commit(plan, storage)


def _committed(storage: Storage, output: str) -> dict[str, Any] | None:
    """Return the content of `_SUCCESS.json`; None if the run is not committed yet."""
    try:
        success: dict[str, Any] = json.loads(storage.read(join(output, SUCCESS)))
    except ObjectMissing:
        return None
    return success
