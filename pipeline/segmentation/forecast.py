"""What a run would do, for `--plan`: rows, bytes, shards, requests and hours, without a cluster and without a write."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from model.checkpoint import from_bytes
from model.preparation import prepare
from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectMissing
from pipeline.results.tables import RUN_FILE
from pipeline.segmentation.claim import refuse_other_run
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.parts import finished_shards
from pipeline.segmentation.plan import Plan, make_plan
from pipeline.segmentation.segmenter import Segmenter

__all__ = ["Forecast", "Pace", "Requests", "forecast"]

_TRIED = 4
# Names in an answer to LIST.
_PAGE = 1000


@dataclass(frozen=True)
class Requests:
    """How often an object store is asked, without retries: docs/scale.md derives the constants."""

    get: int
    put: int
    list: int


@dataclass(frozen=True)
class Pace:
    """How fast one actor would be.

    Attributes:
        seconds: an image; None if it was not tried, or no image could be segmented.
        source: of the figure, or why there is none.
    """

    seconds: float | None
    source: str


@dataclass(frozen=True)
class Forecast:
    """What a submission would do.

    Attributes:
        images: rows of the manifest.
        labelled: of them, those with a label.
        size: bytes of the images whose size is known.
        shards: parts to write.
        finished: of them, those that lie in the output already.
        images_left: in the others.
        requests: of the whole run.
        pace: of one actor.
        actors: that were asked for; None if the cluster's size decides.
        since: the run whose images are left out; None without one.
    """

    images: int
    labelled: int
    size: int
    shards: int
    finished: int
    images_left: int
    requests: Requests
    pace: Pace
    actors: int | None
    since: Mapping[str, Any] | None

    def text(self) -> str:
        """For a terminal, a subject a line."""
        lines = [
            ("images", f"{self.images:,}, {self.labelled:,} of them labelled; {_bytes(self.size)} to read"),
            ("shards", f"{self.shards:,}, {self.finished:,} of them finished already"),
            ("requests", "about {get:,} GET, {put:,} PUT, {list:,} LIST".format(**vars(self.requests))),
            ("time", self._time()),
        ]
        if self.since is not None:
            counts = ", ".join(f"{self.since[name]:,} {name}" for name in ("new", "changed", "unchanged", "gone"))
            lines.insert(1, ("since", f"{self.since['output']}: {counts}"))
        return "\n".join(f"{name:<10}{value}" for name, value in [*lines, ("", "nothing was started or written")])

    def _time(self) -> str:
        if self.pace.seconds is None:
            return f"not known: {self.pace.source}"
        actors = self.actors or 1
        share = _duration(self.images_left * self.pace.seconds / actors)
        by = f"{actors} actors" if actors > 1 else "one actor"
        return f"{share} by {by} ({self.pace.seconds:.3g} s an image, {self.pace.source}), and the start of the job"


def forecast(config: SegmentConfig, storage: Storage) -> Forecast:
    """Lists the inputs, reads the checkpoint, and segments a few images here to see how long they take.

    Raises:
        PipelineError: as the run itself would before it starts.
    """
    plan = make_plan(config, storage)
    _refuse_other(plan, storage)
    finished = finished_shards(storage, config.output, plan.identity)
    labelled = size = 0
    for table in plan.manifest.tables():
        labelled += table.num_rows - table["label_uri"].null_count
        size += sum(value or 0 for value in table["size"].to_pylist())
    left = plan.manifest.num_rows - sum(plan.shard_slice(shard).num_rows for shard in finished)
    return Forecast(
        images=plan.manifest.num_rows,
        labelled=labelled,
        size=size,
        shards=plan.shards,
        finished=len(finished),
        images_left=left,
        requests=_requests(plan, labelled),
        pace=_pace(plan, storage) if left else Pace(None, "no image is left to segment"),
        actors=config.actors,
        since=plan.since,
    )


def _refuse_other(plan: Plan, storage: Storage) -> None:
    try:
        there = storage.read(join(plan.config.output, RUN_FILE))
    except ObjectMissing:
        return
    refuse_other_run(plan, storage, json.loads(there))


def _requests(plan: Plan, labelled: int) -> Requests:
    images, shards, files, actors = (
        plan.manifest.num_rows,
        plan.shards,
        len(plan.frozen_files()),
        plan.config.actors or 1,
    )
    known, listings = 0 if plan.since is None else plan.since["unchanged"], 1 if plan.config.labels is None else 2
    return Requests(
        get=3 + images + labelled + shards + files + actors * (1 + files),
        put=6 + 2 * shards + files,
        list=5 + listings + listings * _more_pages(images + known) + 2 * _more_pages(shards),
    )


def _more_pages(names: int) -> int:
    return max(0, math.ceil(names / _PAGE) - 1)


def _pace(plan: Plan, storage: Storage) -> Pace:
    config, rows = plan.config, plan.manifest.num_rows
    if config.gpus_per_actor and not torch.cuda.is_available():
        return Pace(None, "an actor has a GPU, this machine has none to try it on")
    segmenter = _segmenter(plan, storage)
    # From all over the manifest: neighbours tend to be of one kind.
    chosen = sorted({position * (rows - 1) // max(1, _TRIED - 1) for position in range(_TRIED)})
    images = [plan.manifest.slice(position, 1).to_pylist()[0] for position in chosen]
    segmenter.segment(images[:1])  # compiles, and fills caches
    started = time.perf_counter()
    statuses = segmenter.segment(images).table["status"].to_pylist()
    if "ok" not in statuses:
        return Pace(None, f"of {_number(len(images), 'image')} that were tried none could be segmented")
    where = "a GPU" if config.gpus_per_actor else _number(config.cpus_per_actor, "CPU")
    source = f"tried on {_number(len(images), 'image')} and {where} of this machine"
    return Pace((time.perf_counter() - started) / len(images), source)


def _segmenter(plan: Plan, storage: Storage) -> Segmenter:
    config = plan.config
    torch.set_num_threads(max(1, math.floor(config.cpus_per_actor)))
    network = from_bytes(storage.read(config.checkpoint)).to("cuda" if config.gpus_per_actor else "cpu")
    network = prepare(network, int(config.transform_memory * 2**30), compile_kernels=config.compile)
    return Segmenter(network, config, plan.run_id, storage)


def _bytes(size: int) -> str:
    power = min(4, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**power:,.{1 if power else 0}f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    return f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.0f} minutes"


def _number(count: float, thing: str) -> str:
    return f"{count:g} {thing}" + ("" if count == 1 else "s")
