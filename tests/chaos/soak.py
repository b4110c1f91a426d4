"""Soak test: segmentations of one bucket, one after another, under faults at random moments.

    make chaos                                   ten minutes, another seed each time
    python -m tests.chaos.soak --minutes 30 --seed 7

A run that ends early is submitted again, as a user would do. Each run must end with the tables of an undisturbed run:
no row lost, doubled or different. Two images kill every process that decodes them, and must be the only ones that are
quarantined; two others kill two processes and are then predicted. Otherwise the soak test fails with exit code 1. The
seed decides kind, order and pauses of the faults; their victims depend on the machine's timing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from demo.cluster import local_cluster
from demo.object_store import object_store
from pipeline.concurrency import iterate_in_background
from pipeline.data.storage import join
from pipeline.results.verify import verify
from tests.chaos.assaults import Assaults
from tests.chaos.deadly_images import KILL, KILL_TWICE, DecoderLog, bitmap, digest
from tests.chaos.fault_proxy import fault_proxy
from tests.job_helpers import driver
from tests.segmentation.support import (
    Inputs,
    config_of,
    differing_tables,
    predictions_of,
    run_here,
    write_inputs,
)
from tests.shared import STORAGE

IMAGES = 240
SHARD = 5
HEAD_CPUS = 2
# Names and markers of the deadly images. They lie in adjacent shards, so that several processes die at once, and none
# is the first image of its shard (`Assaults`).
DEADLY = {
    "00011-deadly.bmp": KILL,
    "00016-deadly.bmp": KILL,
    "00021-deadly.bmp": KILL_TWICE,
    "00026-deadly.bmp": KILL_TWICE,
}
KILLERS = {name for name, marker in DEADLY.items() if marker == KILL}
# Settings of the head with which it notices a lost node within seconds, also on busy cores (docs/hosts.md).
WATCHFUL = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
MOST_SUBMISSIONS = 40
# Seconds without progress after which a run counts as hung, whatever faults hit it.
MOST_STILL = 300.0
_POLL_SECONDS = 0.2
# Exit codes that a driver may end with: success, killed, terminated, or "submit it again".
_TOLERABLE = {0, 3, 143, -9, -15}


@dataclass
class Tally:
    """Totals of all runs."""

    runs: int = 0
    submissions: int = 0
    rows_in: int = 0
    rows_out: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    wrongly_quarantined: int = 0
    unsound: int = 0
    stillest: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        wrong = self.lost + self.doubled + self.differing + self.wrongly_quarantined + self.unsound
        return not (wrong or self.complaints)

    def text(self, faults: Counter[str], seconds: float) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
        return (
            f"{self.runs} runs in {seconds / 60:.1f} minutes, {self.submissions} submissions, "
            f"{faults.total()} faults ({kinds})\n"
            f"rows in {self.rows_in}, rows out {self.rows_out}, lost {self.lost}, doubled {self.doubled}, "
            f"tables that differ {self.differing}, wrongly quarantined {self.wrongly_quarantined}, "
            f"runs that do not verify {self.unsound}\n"
            f"longest time without progress {self.stillest:.0f} s"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, _surroundings(options.seed, Path(name)) as surroundings:
        inputs, calm, assaults = surroundings
        started = time.monotonic()
        for number in itertools.count():
            if time.monotonic() - started > 60 * options.minutes:
                break
            decoders = DecoderLog(Path(name) / f"decoders-{number}")
            assaults.begin_run(number, decoders)
            _one_run(inputs, f"out-{number}", calm, assaults, decoders, tally)
            print(f"run {number}: {assaults.counts.total()} faults so far, {tally.submissions} submissions", flush=True)
    print(tally.text(assaults.counts, time.monotonic() - started))
    for complaint in tally.complaints:
        print(f"NOT sound: {complaint}")
    return 0 if tally.good else 1


@contextlib.contextmanager
def _surroundings(seed: int, folder: Path) -> Iterator[tuple[Inputs, str, Assaults]]:
    """Yield the inputs, the tables of an undisturbed run, and the source of faults, with the servers that they need.

    The servers are an S3 server behind a proxy and a cluster of two nodes.
    """
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(object_store(folder / "weed"))
        os.environ.update(store.env)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("soak")
        inputs = write_inputs("s3://soak/in", IMAGES, bad=(7, 130))
        for seed_of_image, (name, marker) in enumerate(DEADLY.items()):
            STORAGE.write(join(inputs.root, "images", name), bitmap(marker, seed_of_image))
        calm = str(folder / "calm")
        killers = [join(inputs.root, "images", name) for name in KILLERS]
        run_here(config_of(inputs, output=calm, shard_images=SHARD), quarantined=killers)
        shards, deadly = _shards_by_digest(calm)
        # This process has already connected to the server directly; everything started from here on uses the proxy.
        proxy = stack.enter_context(fault_proxy(store.endpoint))
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        os.environ.update(WATCHFUL)
        cluster = stack.enter_context(local_cluster(folder / "ray.log", cpus=HEAD_CPUS))
        assaults = Assaults(random.Random(seed), cluster, proxy, folder, shards, deadly)
        yield inputs, calm, stack.enter_context(assaults)


def _shards_by_digest(calm: str) -> tuple[dict[str, int], set[int]]:
    """Return the shard of each image and label by its digest, and the shards with deadly images."""
    shards: dict[str, int] = {}
    deadly = set()
    for position, uri in enumerate(predictions_of(calm)):
        shard = position // SHARD
        shards[digest(STORAGE.read(uri))] = shard
        if uri.rsplit("/", 1)[1] in DEADLY:
            deadly.add(shard)
        else:
            shards[digest(STORAGE.read(uri.replace("/images/", "/labels/")))] = shard
    return shards, deadly


def _one_run(inputs: Inputs, name: str, calm: str, assaults: Assaults, decoders: DecoderLog, tally: Tally) -> None:
    output = join(inputs.root, name)
    # As many actors as fit: nodes come and go.
    settings: dict[str, Any] = {"output": output, "shard_images": SHARD, "actors": None}
    tally.runs += 1
    for _ in range(MOST_SUBMISSIONS):
        tally.submissions += 1
        arguments = inputs.arguments(**settings)
        with driver(assaults.cluster, "segment_bucket", arguments, decoders.environment) as process:
            code, err = _await_end(process, output, assaults, tally)
        if code != 0:
            reason = next((line for line in reversed(err.splitlines()) if line.startswith("error: ")), "")
            print(f"{name}: a submission ended with code {code} {reason}", flush=True)
        if code not in _TOLERABLE:
            tally.complaints.append(f"{name}: exit code {code}: {err[-2000:]}")
        if code == 0:
            return _judge(output, calm, tally)
        if code not in _TOLERABLE:
            break
    tally.complaints.append(f"{name}: not done after {MOST_SUBMISSIONS} submissions")
    return None


def _await_end(process: Any, output: str, assaults: Assaults, tally: Tally) -> tuple[int, str]:
    """Cause faults at random moments until the driver ends, and return its exit code and standard error."""
    before = parts = len(STORAGE.list(join(output, "predictions")))
    changed = time.monotonic()
    # Read the driver's output all the time, since a full pipe would block it.
    for ended in iterate_in_background(lambda put: put(process.communicate()), _POLL_SECONDS):
        if ended is not None:
            return process.returncode, ended[1]
        assaults.maybe(process, progressed=parts > before)
        now = len(STORAGE.list(join(output, "predictions")))
        if now != parts:
            parts = now
            changed = time.monotonic()
        still = time.monotonic() - changed
        tally.stillest = max(tally.stillest, still)
        if still > MOST_STILL:
            tally.complaints.append(f"{output}: nothing went on for {still:.0f} s")
            process.kill()
    raise AssertionError("unreachable")


def _judge(output: str, calm: str, tally: Tally) -> None:
    expected = predictions_of(calm)
    rows: dict[str, dict[str, Any]] = {}
    uris = []
    for info in STORAGE.list(join(output, "predictions")):
        part = predictions_of(output, info.uri)
        rows |= part
        uris += part
    counts = Counter(uris)
    tally.rows_in += len(expected)
    tally.rows_out += len(uris)
    tally.lost += len(expected.keys() - counts.keys())
    tally.doubled += sum(count - 1 for count in counts.values())
    died = {uri.rsplit("/", 1)[1] for uri, row in rows.items() if row["error_type"] == "ProcessDied"}
    tally.wrongly_quarantined += len(died - KILLERS)
    tally.complaints += [f"{output}: {name} was quarantined" for name in sorted(died - KILLERS)]
    different = differing_tables(output, calm)
    tally.differing += len(different)
    tally.complaints += [f"{output}: {name} differs" for name in different]
    if not (verdict := verify(output, STORAGE)).ok:
        tally.unsound += 1
        tally.complaints.append(f"{output}: {verdict}")


if __name__ == "__main__":
    sys.exit(main())
