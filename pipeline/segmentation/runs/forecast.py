"""Forecast of a run for `--dry-run`: rows, bytes, shards, requests and hours, without a cluster and without a write."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from model.kernels.preparation import prepare
from pipeline.data.manifest_table import describe_changes
from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectMissing
from pipeline.results.tables import RUN_FILE
from pipeline.segmentation.config import SegmentConfig, network_of
from pipeline.segmentation.runs.claim import refuse_other_run
from pipeline.segmentation.runs.plan import Plan, make_plan
from pipeline.segmentation.runs.shards import finished_shards
from pipeline.segmentation.segmenter import Segmenter

__all__ = ["Forecast", "Requests", "ThroughputEstimate", "forecast"]

# Images that are segmented to measure the throughput.
_TRIED = 4
# Largest number of names in one response to LIST.
_PAGE = 1000


@dataclass(frozen=True)
class Requests:
    """Number of requests to the object store, without retries; docs/scale.md derives the constants.

    Attributes:
        get: Number of GET requests.
        put: Number of PUT requests.
        list: Number of LIST requests.
    """

    get: int
    put: int
    list: int


@dataclass(frozen=True)
class ThroughputEstimate:
    """Expected speed of one actor.

    Attributes:
        seconds: Seconds per image; None if no image was tried, or none could be segmented.
        source: Origin of the figure, or the reason why there is none.
    """

    seconds: float | None
    source: str


@dataclass(frozen=True)
class Forecast:
    """Expected work of a submission.

    Attributes:
        images: Number of rows of the manifest.
        labelled: Number of images with a label.
        size: Bytes of the images whose size is known.
        shards: Number of parts of the run.
        finished: Number of parts that lie in the output already.
        images_left: Number of images in the unfinished shards.
        requests: Number of requests of the whole run.
        throughput: Expected speed of one actor.
        actors: Configured number of actors; None if the size of the cluster decides.
        since: Earlier run whose unchanged images are left out, as in `Plan.since`; None without one.
        windows: Window and overlap in pixels, if they decide labels; else empty.
    """

    images: int
    labelled: int
    size: int
    shards: int
    finished: int
    images_left: int
    requests: Requests
    throughput: ThroughputEstimate
    actors: int | None
    since: Mapping[str, Any] | None
    windows: Mapping[str, Any]

    def text(self) -> str:
        """Return the forecast as text for a terminal, one subject per line."""
        lines = [
            ("images", f"{self.images:,}, {self.labelled:,} of them labelled; {_bytes(self.size)} to read"),
            ("shards", f"{self.shards:,}, {self.finished:,} of them finished already"),
            ("requests", "about {get:,} GET, {put:,} PUT, {list:,} LIST".format(**vars(self.requests))),
            ("time", self._time()),
        ]
        if self.windows:
            text = "labels of images larger than {window} pixels depend on windows that overlap by {overlap} pixels"
            lines.append(("windows", text.format(**self.windows)))
        if self.since is not None:
            lines.insert(1, ("since", f"{self.since['output']}: {describe_changes(self.since)}"))
        return "\n".join(f"{name:<10}{value}" for name, value in [*lines, ("", "nothing was started or written")])

    def _time(self) -> str:
        if self.throughput.seconds is None:
            return f"not known: {self.throughput.source}"
        actors = self.actors or 1
        share = _duration(self.images_left * self.throughput.seconds / actors)
        by = f"{actors} actors" if actors > 1 else "one actor"
        each = f"{self.throughput.seconds:.3g} s an image, {self.throughput.source}"
        return f"{share} by {by} ({each}), and the start of the job"


def forecast(config: SegmentConfig, storage: Storage | None = None) -> Forecast:
    """Forecast a run: list the inputs, read the checkpoint, and time a few images on this machine.

    Args:
        config: Configuration of the run.
        storage: Storage of the inputs, the checkpoint and the output; None: default retries.

    Raises:
        PipelineError: If the run itself would raise it before it starts.
    """
    storage = storage or Storage()
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
        throughput=_throughput(plan, storage) if left else ThroughputEstimate(None, "no image is left to segment"),
        actors=config.actors,
        since=plan.since,
        windows={name: value for name, value in plan.ingredients["settings"].items() if name in ("window", "overlap")},
    )


def _refuse_other(plan: Plan, storage: Storage) -> None:
    """Raise RunConflict if another run has claimed the output."""
    try:
        there = storage.read(join(plan.config.output, RUN_FILE))
    except ObjectMissing:
        return
    refuse_other_run(plan, storage, json.loads(there))


def _requests(plan: Plan, labelled: int) -> Requests:
    """Return the number of requests of the whole run, with the constants that docs/scale.md derives."""
    images, shards, files, actors = (
        plan.manifest.num_rows,
        plan.shards,
        len(plan.frozen_files()),
        plan.config.actors or 1,
    )
    known = 0 if plan.since is None else plan.since["unchanged"]
    listings = 1 if plan.config.labels is None else 2
    return Requests(
        get=3 + images + labelled + shards + files + actors * (1 + files),
        put=6 + 2 * shards + files,
        list=5 + listings + listings * _more_pages(images + known) + 2 * _more_pages(shards),
    )


def _more_pages(names: int) -> int:
    """Return the number of LIST requests that so many names need beyond the first one."""
    return max(0, math.ceil(names / _PAGE) - 1)


def _throughput(plan: Plan, storage: Storage) -> ThroughputEstimate:
    """Segment a few images of the manifest on this machine, and return the seconds per image."""
    config = plan.config
    rows = plan.manifest.num_rows
    if config.gpus_per_actor and not torch.cuda.is_available():
        return ThroughputEstimate(None, "an actor has a GPU, this machine has none to try it on")
    segmenter = _segmenter(plan, storage)
    # Positions spread over the whole manifest, because neighboring images tend to be alike.
    chosen = sorted({position * (rows - 1) // max(1, _TRIED - 1) for position in range(_TRIED)})
    images = [plan.manifest.slice(position, 1).to_pylist()[0] for position in chosen]
    # A first pass without timing compiles kernels and fills caches.
    segmenter.segment(images[:1])
    started = time.perf_counter()
    statuses = segmenter.segment(images).table["status"].to_pylist()
    if "ok" not in statuses:
        return ThroughputEstimate(None, f"of {_number(len(images), 'image')} that were tried none could be segmented")
    where = "a GPU" if config.gpus_per_actor else _number(config.cpus_per_actor, "CPU")
    source = f"tried on {_number(len(images), 'image')} and {where} of this machine"
    return ThroughputEstimate((time.perf_counter() - started) / len(images), source)


def _segmenter(plan: Plan, storage: Storage) -> Segmenter:
    """Return a segmenter with the network and the threads of one actor."""
    config = plan.config
    torch.set_num_threads(max(1, math.floor(config.cpus_per_actor)))
    network = network_of(config, storage.read(config.checkpoint)).to("cuda" if config.gpus_per_actor else "cpu")
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
