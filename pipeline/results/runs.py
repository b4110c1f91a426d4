"""Which runs lie below a prefix, and how far each has come."""

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

_HEADINGS = ("output", "run", "begun", "state", "images", "failed", "mean IoU", "since", "checkpoint")
_RIGHT = frozenset({"images", "failed", "mean IoU"})


@dataclass(frozen=True)
class RunSummary:
    """What a run says of itself. What it does not say is None.

    Attributes:
        output: where it lies.
        run_id: the first 16 digits of its identity.
        begun: time of the first submission, ISO 8601 in UTC.
        shards: how many parts it has when it is finished.
        parts: how many it has now.
        committed: whether its tables are complete.
        images: rows of its manifest.
        errors: of them, those that failed; None before the commit.
        mean_iou: in [0, 1]; None before the commit or without labels.
        since: output of the run that it was made since.
        checkpoint: URI of the network.
        problem: why nothing more is known, if run.json or _SUCCESS.json cannot be understood.
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
        """In words."""
        if self.problem is not None:
            return f"unreadable: {self.problem}"
        return "committed" if self.committed else f"{self.parts} of {self.shards} parts"


def find_runs(storage: Storage, prefix: str, depth: int = 4) -> Iterator[RunSummary]:
    """Runs at or below a prefix, by name. Folders of a run are not looked into, except to count its parts.

    Args:
        storage: how to read.
        prefix: where to look.
        depth: how many folders deep.

    Raises:
        StorageError: if the bucket does not exist, or storage does not do its work.
    """
    folders = []
    names = set[str]()
    for uri, folder in level(storage, prefix):
        if folder:
            folders.append(uri)
        elif (name := uri.rpartition("/")[2]) in (RUN_FILE, SUCCESS):
            names.add(name)
    if RUN_FILE in names:
        yield _summary(storage, prefix.rstrip("/"), SUCCESS in names)
    elif depth > 0:
        for uri in sorted(folders):
            yield from find_runs(storage, uri, depth - 1)


def _summary(storage: Storage, output: str, committed: bool) -> RunSummary:
    try:
        info, success = _json(storage, join(output, RUN_FILE)), {}
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
        raise ValueError(f"{uri} holds no object")
    return found


def runs_text(runs: list[RunSummary]) -> str:
    """A line a run, under headings."""
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
