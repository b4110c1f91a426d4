"""Cost of a run of N images for its driver and its storage, measured as far as time allows and extrapolated beyond.

    python -m benchmarks.scale --rows 1000000 10000000 100000000   submitting and resuming, by the length of the listing
    python -m benchmarks.scale --lists 20000                       the same where a Parquet file names the images
    python -m benchmarks.scale --parts 1000 10000                  committing, by the number of parts
    python -m benchmarks.scale --shards 16 64 256 1024             committing 100 parts, by images per shard
    python -m benchmarks.scale --requests                          requests of whole small runs, as a formula

The bucket is a mock server beside each measurement (`benchmarks.scale.server`). It generates the listing and counts
requests. A size for which one process would take longer than `--limit` seconds is not measured. It is extrapolated from
the two largest measured sizes and marked with them (`extrapolated_from`). Results are added to
benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.probe import machine
from benchmarks.scale.arithmetic import by_size, formula, shard_size
from benchmarks.scale.measurements import NAMES, SHARD
from benchmarks.scale.remote import Numbers, served

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
_PACKAGES = ("pyarrow", "s3fs", "botocore", "ray")
_PARTS = 100
_SHARD_ROWS = 1_000_000
# (images, images per shard): three runs to solve for the formula, and one to check it.
_RUNS = ((64, 16), (64, 4), (32, 16), (48, 8))


def main() -> None:
    """Run the chosen measurements and add them to scale.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("rows", "lists", "parts", "shards"):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=[])
    parser.add_argument("--requests", action="store_true")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one process")
    options = parser.parse_args()
    keep("rows", by_size(options.rows, rows, options.limit))
    keep("lists", by_size(options.lists, listed, options.limit))
    keep("commit", by_size(options.parts, lambda count: commit(count, SHARD), options.limit))
    keep("shards", by_size(options.shards, shard))
    if options.requests:
        keep("requests", requests())


def keep(section: str, entries: Iterable[tuple[object, Numbers]]) -> None:
    """Add each measurement to a section of scale.json as soon as it is finished."""
    for name, entry in entries:
        print(f"{section} {name}: {json.dumps(entry)}", flush=True)
        content: Numbers = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        content["machine"] = machine() | {package: importlib.metadata.version(package) for package in _PACKAGES}
        content.setdefault(section, {})[str(name)] = entry
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def rows(count: int) -> Numbers:
    """Measure a first submission of `count` images, and a second one when all parts but one exist."""
    with served() as server:
        server.make_up("images/", count, NAMES)
        first = server.measure("submission", count)
        server.make_up("out/predictions/", first["shards"] - 1, first["part_format"])
        again = server.measure("submission", count)
    for entry in (first, again):
        del entry["part_format"]
    return {"plan": first, "resume": {name: again[name] for name in again if name not in ("shards", "manifest_bytes")}}


def listed(count: int) -> Numbers:
    """Measure a first submission of `count` images that a Parquet file names."""
    with served() as server:
        server.make_up("images/", count, NAMES)
        found = server.measure("submission_of_list", count)
    del found["part_format"]
    return found


def commit(parts: int, shard_images: int) -> Numbers:
    """Measure the commit of a run whose parts all exist."""
    with served() as server:
        server.make_up("images/", parts * shard_images, NAMES)
        return server.measure("parts", parts, shard_images) | server.measure("commit", parts, shard_images)


def shard(images: int) -> Numbers:
    """Measure the commit of 100 parts of `images` images, and extrapolate it to a billion images."""
    found = commit(_PARTS, images)
    return found | {"billion": shard_size(images, found)}


def requests() -> Iterable[tuple[str, Numbers]]:
    """Yield formulas of requests of whole runs, with labels and without, and the memory of a driver's shard list."""
    for kind in ("labelled", "unlabelled"):
        runs = []
        for sizes in _RUNS:
            with served() as server:
                runs.append(server.measure(f"{kind}_run", *sizes))
        yield kind, {"formula": formula(runs), "bytes_per_image": runs[0]["bytes_per_image"]}
    with served() as server:
        yield "driver_shard_list", server.measure("shard_list", _SHARD_ROWS)


if __name__ == "__main__":
    main()
