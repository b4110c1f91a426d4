"""A run since another one: do its changes and its inputs speak of the same images?"""

from __future__ import annotations

from collections import Counter

from pipeline.results.tables import Run

__all__ = ["changes_problems"]


def changes_problems(run: Run, uris: list[str]) -> list[str]:
    """What is wrong with `changes` of a run, one sentence each; nothing if it was made since no other.

    Args:
        run: a committed run.
        uris: of its images, in order.
    """
    since = run.success.get("since")
    if since is None:
        return []
    taken, counts = list[str](), Counter[str]()
    for table in run.tables("changes/", ["image_uri", "change"]):
        kinds = table["change"].to_pylist()
        counts.update(kinds)
        pairs = zip(table["image_uri"].to_pylist(), kinds, strict=True)
        taken += [uri for uri, kind in pairs if kind != "gone"]
    problems = [
        f"_SUCCESS.json says {since.get(kind)} images are {kind} since then, changes has {counts[kind]}"
        for kind in ("new", "changed", "gone")
        if since.get(kind) != counts[kind]
    ]
    if taken != uris:
        problems.append("the new and changed images of changes are not the run's images")
    return problems
