"""Facts about a run from `run.json` and its tables, as names and values."""

from __future__ import annotations

import json
from typing import Any

from pipeline.results.report.survey import Survey

__all__ = ["all_facts", "main_facts"]

Facts = list[tuple[str, str]]


def main_facts(info: dict[str, Any], found: Survey) -> Facts:
    """Return the main facts of a run: network, data, important settings, and the work per image.

    A fact that an older run does not record is left out.

    Args:
        info: Content of `run.json`.
        found: Survey of the run's images.
    """
    settings = info.get("settings", {})
    checkpoint = info.get("checkpoint", {})
    provenance = info.get("provenance", {})
    rows = info.get("manifest", {}).get("rows")
    scored = f"{found.scores.total:,} of them scored against a label"
    facts = {
        "network": checkpoint.get("uri"),
        "images": settings.get("images"),
        "labels": settings.get("labels"),
        "label space": settings.get("label_space"),
        "inputs": None if rows is None else f"{rows:,} images, {scored}",
        "since": _since(info.get("since")),
        "geometry": settings.get("geometry"),
        "averaged over": _views(settings),
        "started": provenance.get("created_at"),
        "time per image": _work(found),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def all_facts(info: dict[str, Any]) -> Facts:
    """Return all facts of `run.json`: the checkpoint, the sections from settings to provenance, and the identity.

    Null values are left out. A value that is not text is written as JSON.

    Args:
        info: Content of `run.json`.
    """
    facts = [("checkpoint", info.get("checkpoint", {}).get("uri", ""))]
    facts.append(("checkpoint SHA-256", info.get("checkpoint", {}).get("sha256", "")))
    for section in ("settings", "manifest", "shards", "provenance"):
        for name, value in info.get(section, {}).items():
            if value is not None:
                facts.append((_words(section, name), value if isinstance(value, str) else json.dumps(value)))
    return [*facts, ("identity", info.get("identity", ""))]


def _since(since: dict[str, Any] | None) -> str | None:
    """Describe the earlier run of `--since` and the number of images by kind of change; None without one."""
    if since is None:
        return None
    counts = ", ".join(f"{since[name]:,} {name}" for name in ("new", "changed", "unchanged", "gone"))
    return f"{since['output']}: {counts}; the earlier runs have the unchanged images"


def _views(settings: dict[str, Any]) -> str | None:
    """Describe the scales and the mirroring that predictions are averaged over; None for the plain image alone."""
    # A run without these settings uses the image as it is.
    scales = settings.get("scales") or [1.0]
    flip = settings.get("flip")
    if not flip and scales == [1.0]:
        return None
    return f"scales {', '.join(f'{scale:g}' for scale in scales)}" + (", each also mirrored" if flip else "")


def _work(found: Survey) -> str | None:
    """Describe the mean time per image, from the column `seconds`; None without predicted images.

    No table records the duration of the run, which may have been interrupted.
    """
    if not found.images or not found.seconds:
        return None
    mean = found.seconds / found.images
    return f"{mean:.3g} s on average to load, predict and encode; {1 / mean:.3g} images per second, one after the other"


def _words(section: str, name: str) -> str:
    words = name.replace("_", " ")
    # Names of the other sections, such as `rows`, are unclear without the section.
    return words if section in ("settings", "provenance") else f"{section} {words}"
