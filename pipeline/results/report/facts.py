"""What `run.json` and the tables say of a run, as names and values."""

from __future__ import annotations

import json
from typing import Any

from pipeline.results.report.survey import Survey

__all__ = ["all_facts", "main_facts"]

Facts = list[tuple[str, str]]


def main_facts(info: dict[str, Any], found: Survey) -> Facts:
    """Network, data, settings that matter and the work per image; what an older run does not say is left out."""
    settings, checkpoint = info.get("settings", {}), info.get("checkpoint", {})
    provenance, rows = info.get("provenance", {}), info.get("manifest", {}).get("rows")
    scored = f"{found.scores.total:,} of them scored by a label"
    facts = {
        "network": checkpoint.get("uri"),
        "images": settings.get("images"),
        "labels": settings.get("labels"),
        "label space": settings.get("label_space"),
        "inputs": None if rows is None else f"{rows:,}, {scored}",
        "since": _since(info.get("since")),
        "geometry": settings.get("geometry"),
        "averaged over": _views(settings),
        "begun": provenance.get("created_at"),
        "work per image": _work(found),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def all_facts(info: dict[str, Any]) -> Facts:
    """run.json as name and value, settings first."""
    facts = [("checkpoint", info.get("checkpoint", {}).get("uri", ""))]
    facts.append(("checkpoint SHA-256", info.get("checkpoint", {}).get("sha256", "")))
    for section in ("settings", "manifest", "shards", "provenance"):
        for name, value in info.get(section, {}).items():
            if value is not None:
                facts.append((_words(section, name), value if isinstance(value, str) else json.dumps(value)))
    return [*facts, ("identity", info.get("identity", ""))]


def _since(since: dict[str, Any] | None) -> str | None:
    """Of a run that leaves out what an earlier one has."""
    if since is None:
        return None
    counts = ", ".join(f"{since[name]:,} {name}" for name in ("new", "changed", "unchanged", "gone"))
    return f"{since['output']}: {counts}; unchanged images are in that run"


def _views(settings: dict[str, Any]) -> str | None:
    scales, flip = settings.get("scales") or [1.0], settings.get("flip")
    if not flip and scales == [1.0]:
        return None
    return f"scales {', '.join(f'{scale:g}' for scale in scales)}" + (", each also mirrored" if flip else "")


def _work(found: Survey) -> str | None:
    """From the column `seconds`; no table says how long a run took, which may have been interrupted."""
    if not found.images or not found.seconds:
        return None
    mean = found.seconds / found.images
    return f"{mean:.3g} s from fetch to encode, so {1 / mean:.3g} images per second if one follows the other"


def _words(section: str, name: str) -> str:
    words = name.replace("_", " ")
    return words if section in ("settings", "provenance") else f"{section} {words}"
