"""Figures computed from measurements: sizes beyond those measured, and formulas of requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from benchmarks.scale.remote import Numbers

__all__ = ["by_size", "extrapolated", "formula", "shard_size"]

_TERMS = ("constant", "per_image", "per_shard")
_LENGTH = 10**9


def by_size(
    sizes: Iterable[int], measure: Callable[[int], Numbers], limit: float = math.inf
) -> Iterator[tuple[int, Numbers]]:
    """Yield each size with its measurement, or with an extrapolation if it would take too long.

    The first two sizes are always measured. An extrapolation is on the line through the last two measured sizes.

    Args:
        sizes: Sizes to measure, in any order.
        measure: Function that measures one size.
        limit: Longest time in seconds that one process of a measurement may take.
    """
    done: list[tuple[int, Numbers]] = []
    for size in sorted(sizes):
        if len(done) < 2 or _longest(done[-1][1]) * size / done[-1][0] <= limit:
            done.append((size, measure(size)))
            yield done[-1]
        else:
            (small, before), (large, last) = done[-2:]
            line = extrapolated(before, last, (size - large) / (large - small))
            yield size, line | {"extrapolated_from": [small, large]}


def _longest(entry: Numbers) -> float:
    """Return seconds of the longest process of a measurement."""
    parts = [_longest(part) for part in entry.values() if isinstance(part, dict)]
    return max(float(entry.get("seconds", 0)), *parts, 0.0)


def extrapolated(small: Numbers, large: Numbers, steps: float) -> Numbers:
    """Return a measurement beyond the large one by `steps` times the difference from small to large.

    Memory (`*_mib`) does not grow linearly, and is None.
    """
    found: Numbers = {}
    for name, value in large.items():
        if isinstance(value, dict):
            found[name] = extrapolated(small[name], value, steps)
        elif name.endswith("_mib"):
            found[name] = None
        else:
            beyond = value + steps * (value - small.get(name, 0))
            found[name] = round(beyond) if isinstance(value, int) else round(beyond, 1)
    return found


def formula(runs: list[Numbers]) -> Numbers:
    """Return requests by phase and kind as constant + per image + per shard, solved from three runs.

    Further runs check the formula.

    Raises:
        ValueError: If a further run made another number of requests.
    """
    sides = np.array([[1, run["images"], run["images"] / run["shard_images"]] for run in runs])
    return {phase: _phase_formula(sides, [run["requests"][phase] for run in runs]) for phase in runs[0]["requests"]}


def _phase_formula(sides: np.ndarray, requests: list[Numbers]) -> Numbers:
    """Return the formula of one phase, by kind of request; `sides` (runs, 3) holds 1, images and shards of each run."""
    found: Numbers = {}
    for kind in sorted({kind for counts in requests for kind in counts}):
        counts = np.array([by_kind.get(kind, 0) for by_kind in requests])
        solved = np.linalg.solve(sides[:3], counts[:3]).round(6)
        if not np.allclose(sides @ solved, counts):
            raise ValueError(f"{kind}: {counts.tolist()} requests are not {solved.tolist()}")
        found[kind] = {term: int(value) for term, value in zip(_TERMS, solved, strict=True) if value}
    return found


def shard_size(images: int, commit: Numbers) -> Numbers:
    """Return number of parts and hours to commit a billion images in shards of `images`.

    The time is in proportion to a measured commit of fewer parts.
    """
    parts = math.ceil(_LENGTH / images)
    return {"parts": parts, "commit_hours": round(parts / commit["parts"] * commit["seconds"] / 3600, 1)}
