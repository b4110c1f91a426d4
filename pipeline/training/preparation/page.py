"""The page of a dry run: classes, warnings, estimates and a batch of each stage; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pipeline.results.report.page import hex_colour, page_environment
from pipeline.training.preparation.survey import Survey

__all__ = ["StagePicture", "dry_run_page"]


@dataclass(frozen=True)
class StagePicture:
    """One stage as drawn and measured.

    Attributes:
        name: Name of the stage.
        estimate: Sentence about its time and memory.
        picture: Batch with labels and legend.
    """

    name: str
    estimate: str
    picture: Image.Image


def dry_run_page(title: str, facts: Sequence[str], survey: Survey, stages: Sequence[StagePicture]) -> bytes:
    """Return the page as HTML.

    Args:
        title: Name of the recipe and the data.
        facts: Sentences about the whole run.
        survey: Survey of the data.
        stages: Stages in order.
    """
    template = page_environment("pipeline.training.preparation").get_template("dry_run.html")
    pictures = [(stage.name, stage.estimate, _data_uri(stage.picture)) for stage in stages]
    return template.render(
        title=title,
        facts=facts,
        survey=survey,
        rows=[(each, hex_colour(each.color)) for each in survey.classes],
        warnings=list(survey.warnings()),
        problems=sorted(survey.problems.items()),
        stages=pictures,
    ).encode()


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
