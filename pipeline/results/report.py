"""A run as one self-contained web page: facts, IoU per class, samples, failures by reason."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from PIL import Image

from pipeline.data.storage import Storage, join
from pipeline.results.contact_sheet import contact_sheet
from pipeline.results.tables import Run

__all__ = ["Report", "render_html", "write_report"]

_EXAMPLES = 10  # failed images shown per reason


@dataclass(frozen=True)
class Report:
    """Where a report was written.

    Attributes:
        page: URI of ``report/index.html``.
        sheet: URI of ``report/contact_sheet.png``; None if no image was predicted.
    """

    page: str
    sheet: str | None


def write_report(output: str, storage: Storage | None = None, images: int = 6) -> Report:
    """Write ``<output>/report/index.html`` and ``<output>/report/contact_sheet.png``, replacing older ones.

    Args:
        output: the URI of a committed run.
        storage: how to read and write; None = default retries.
        images: at most so many rows on the contact sheet.

    Raises:
        IncompleteRun: nothing is committed there.
    """
    run = Run(output, storage)
    sheet = contact_sheet(run, images)
    page = join(run.output, "report", "index.html")
    run.storage.write(page, render_html(run, sheet).encode())
    if sheet is None:
        return Report(page, None)
    picture = join(run.output, "report", "contact_sheet.png")
    run.storage.write(picture, sheet)
    return Report(page, picture)


def render_html(run: Run, sheet: bytes | None) -> str:
    """The page; `sheet` is the contact sheet as PNG bytes. Nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.results", "."),
        autoescape=True,  # names, URIs and messages come from other people's files
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data_uri = None if sheet is None else _jpeg_uri(sheet)
    success = run.success
    return environment.get_template("report.html").render(
        run_id=success["run_id"],
        output=run.output,
        images=success["images"],
        errors=success["errors"],
        mean_iou=success["mean_iou"],
        pixel_accuracy=success["pixel_accuracy"],
        labelled=success["mean_iou"] is not None,
        classes=_class_rows(run),
        sheet=data_uri,
        reasons=_reasons(run.errors()),
        facts=_facts(run.info()),
        percent=_percent,
    )


def _jpeg_uri(png: bytes) -> str:
    """The picture as a data URI; JPEG, since a page of photographs as PNG is megabytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _class_rows(run: Run) -> list[dict[str, Any]]:
    scores = run.class_scores()
    labelled = bool(scores["target_pixels"].notna().any())
    pixels = scores["target_pixels" if labelled else "predicted_pixels"]
    total = int(pixels.sum())
    rows = scores.astype(object).where(scores.notna(), None).to_dict("records")
    for row, count, colour in zip(rows, pixels, run.success["palette"], strict=True):
        row["share"] = int(count) / total if total else None
        row["colour"] = "#" + bytes(colour).hex()
        row["bar"] = round(100 * (row["iou"] or 0.0), 1)
    return [{str(key): value for key, value in row.items()} for row in rows]


def _reasons(errors: pd.DataFrame) -> list[dict[str, Any]]:
    """Failures grouped by stage and type, the most frequent first."""
    groups = []
    for (stage, kind), rows in errors.groupby(["error_stage", "error_type"], sort=True):
        shown = rows.head(_EXAMPLES)
        examples = [
            {"uri": uri, "message": message}
            for uri, message in zip(shown["image_uri"], shown["error_message"], strict=True)
        ]
        groups.append({"stage": stage, "type": kind, "count": len(rows), "examples": examples})
    return sorted(groups, key=lambda group: -group["count"])


def _facts(description: dict[str, Any]) -> list[tuple[str, str]]:
    """run.json as name and value, settings first."""
    facts = [("checkpoint", description.get("checkpoint", {}).get("uri", ""))]
    for section in ("settings", "manifest", "shards", "provenance"):
        for name, value in description.get(section, {}).items():
            if value is not None:
                facts.append((_words(section, name), value if isinstance(value, str) else json.dumps(value)))
    return [*facts, ("identity", description.get("identity", ""))]


def _words(section: str, name: str) -> str:
    words = name.replace("_", " ")
    return words if section in ("settings", "provenance") else f"{section} {words}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
