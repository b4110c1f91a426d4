"""Search for runs below a storage prefix, with a summary of each run's progress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.data.listing import level
from pipeline.data.storage import Storage, join
from pipeline.errors import ObjectMissing
from pipeline.results.tables import RUN_FILE, SUCCESS

__all__ = ["RunSummary", "find_runs", "runs_text"]

_HEADINGS = ("output", "run", "started", "state", "images", "failed", "mean IoU", "since", "checkpoint")
_RIGHT = frozenset({"images", "failed", "mean IoU"})


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run from its run.json and _SUCCESS.json; a value that they do not state is None.

    Attributes:
        output: URI of the folder that holds the run.
        run_id: First 16 digits of the run's identity.
        begun: Time of the first submission, ISO 8601 in UTC.
        shards: Number of parts that the finished run has.
        parts: Number of parts that exist now.
        committed: Whether the run's tables are complete.
        images: Number of rows of the run's manifest.
        errors: Number of images that failed; None before the commit.
        mean_iou: Mean IoU in [0, 1]; None before the commit or without labels.
        since: Output of the earlier run that `--since` named.
        checkpoint: URI of the network's checkpoint.
        problem: Reason why nothing more is known, if run.json or _SUCCESS.json cannot be interpreted.
    """

    output: str
    run_id: str | None = None
    begun: str | None = None
    shards: int | None = None
    parts: int | None = None
    committed: bool = False
    images: int | None = None
    errors: int | None = None
    mean_iou: float | None = None
    since: str | None = None
    checkpoint: str | None = None
    problem: str | None = None

    @property
    def state(self) -> str:
        """Return the state in words: committed, the number of parts so far, or why the run is unreadable."""
        if self.problem is not None:
            return f"unreadable: {self.problem}"
        return "committed" if self.committed else f"{self.parts} of {self.shards} parts"


def find_runs(storage: Storage, prefix: str, depth: int = 4) -> Iterator[RunSummary]:
    """Yield a summary of every run at or below a prefix, sorted by name.

    The folders of a run are not searched, except to count the run's parts.

    Args:
        storage: Storage to read from.
        prefix: URI of the folder to search.
        depth: Number of folder levels to search below the prefix.

    Raises:
        StorageError: If the bucket does not exist, or storage fails.
    """
    # Look at one folder level: its subfolders, and the two files that mark a run.
    folders = []
    names = set[str]()
    for uri, folder in level(storage, prefix):
        if folder:
            folders.append(uri)
        elif (name := uri.rpartition("/")[2]) in (RUN_FILE, SUCCESS):
            names.add(name)
    # A run is a leaf of the search.
    if RUN_FILE in names:
        yield _summary(storage, prefix.rstrip("/"), SUCCESS in names)
    elif depth > 0:
        for uri in sorted(folders):
            yield from find_runs(storage, uri, depth - 1)


def _summary(storage: Storage, output: str, committed: bool) -> RunSummary:
    # One damaged run must not end the listing of the others, so errors become its `problem`.
    try:
        info = _json(storage, join(output, RUN_FILE))
        success = {}
        if committed:
            success = _json(storage, join(output, SUCCESS))
        shards = int(info["shards"]["count"])
        return RunSummary(
            output,
            run_id=str(info["run_id"]),
            begun=info["provenance"]["created_at"],
            shards=shards,
            parts=shards if committed else sum(1 for _ in level(storage, join(output, "predictions"))),
            committed=committed,
            images=int(info["manifest"]["rows"]),
            errors=success.get("errors"),
            mean_iou=success.get("mean_iou"),
            since=(info.get("since") or {}).get("output"),
            checkpoint=info["checkpoint"]["uri"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, ObjectMissing) as error:
        return RunSummary(output, problem=f"{type(error).__name__}: {error}")


def _json(storage: Storage, uri: str) -> dict[str, Any]:
    found = json.loads(storage.read(uri))
    if not isinstance(found, dict):
        raise ValueError(f"{uri} does not contain a JSON object")
    return found


def runs_text(runs: list[RunSummary]) -> str:
    """Return a text table of runs: a line of headings, then one line per run."""
    rows = [_HEADINGS, *(_cells(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = (
        cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
        for heading, cell, width in zip(_HEADINGS, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _cells(run: RunSummary) -> tuple[str, ...]:
    return (
        run.output,
        run.run_id or "–",
        run.begun or "–",
        run.state,
        _count(run.images),
        _count(run.errors),
        "–" if run.mean_iou is None else f"{100 * run.mean_iou:.1f}",
        run.since or "–",
        run.checkpoint or "–",
    )


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
