"""Consistency check of a `--since` run: its changes must name the images that it segmented."""

from __future__ import annotations

from collections import Counter

from pipeline.results.tables import Run

__all__ = ["changes_problems"]


def changes_problems(run: Run, uris: list[str]) -> list[str]:
    """Return the problems of a run's `changes` table.

    Args:
        run: Committed run.
        uris: Image URIs of the run's predictions, in order.

    Returns:
        One sentence per problem; empty if all is well, or if the run was not made with `--since`.
    """
    since = run.success.get("since")
    if since is None:
        return []
    taken = list[str]()
    counts = Counter[str]()
    for table in run.tables("changes/", ["image_uri", "change"]):
        kinds = table["change"].to_pylist()
        counts.update(kinds)
        # Images that are gone appear in `changes`, but the run does not segment them.
        pairs = zip(table["image_uri"].to_pylist(), kinds, strict=True)
        taken += [uri for uri, kind in pairs if kind != "gone"]
    problems = [
        f"_SUCCESS.json says that {since.get(kind)} images are {kind}, the table changes has {counts[kind]}"
        for kind in ("new", "changed", "gone")
        if since.get(kind) != counts[kind]
    ]
    if taken != uris:
        problems.append("the new and changed images in the table changes are not the images of the run")
    return problems
