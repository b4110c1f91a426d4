r"""Write the masks of a committed run in the format of another tool.

    ray job submit --working-dir . -- python jobs/export.py s3://bucket/out/x --to coco --output s3://bucket/export/x

Formats: index-png and color-png (folders), coco (one JSON of run lengths), geojson (polygons), label-studio and cvat
(the 50 most uncertain images, for correction). Works without Ray too: `python jobs/export.py RUN …`. Exit codes: 0
written; 2 wrong usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse
from pipeline.options import option

Order = Literal["manifest", "uncertain", "worst"]


class ExportOptions(WriterOptions):
    """Options of `jobs/export.py`."""

    run: Positional[str]
    """URI of the run, as given to segment_bucket.py --output."""
    to: Literal["index-png", "color-png", "coco", "geojson", "label-studio", "cvat"]
    """Format of the files."""
    output: Annotated[str, option("URI")]
    """URI of a folder for the files."""
    images: Annotated[Annotated[int, Field(ge=1)] | None, option("INT", "all; label-studio and cvat: 50")] = None
    """Largest number of images."""
    order: Annotated[Order | None, option("ORDER", "manifest; label-studio and cvat: uncertain")] = None
    """Order that decides which images are first: manifest (by URI), uncertain (by entropy) or worst (by mean IoU)."""
    classes: Annotated[str | None, option("NAMES", "all")] = None
    """Names of the classes to export, with commas between."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Pixels by which outlines may move to have fewer points; geojson only."""
    label_values: bool = False
    """Write the values of the label files that the network was trained on, instead of class ids; index-png only."""

    @model_validator(mode="after")
    def _fits_format(self) -> ExportOptions:
        if self.tolerance and self.to != "geojson":
            raise ValueError(f"--tolerance is {self.tolerance:g}, must be 0 or more, and is for geojson only")
        if self.label_values and self.to != "index-png":
            raise ValueError(f"--label-values is for index-png, not for {self.to}")
        return self


@job
def main(arguments: list[str]) -> None:
    """Export the masks of a run, and print the number of images and the folder."""
    options = parse(ExportOptions, arguments, __doc__)
    from pipeline.results.exports.export import Request, export_run, plan_export

    request = Request(
        options.to,
        options.output,
        options.images,
        options.order,
        options.classes.split(",") if options.classes is not None else None,
        options.tolerance,
        options.label_values,
    )
    if options.dry_run:
        print(plan_export(options.run, request).text())
        return
    export = export_run(options.run, request)
    failed = f"; {export.failed:,} of the run failed and have no mask" if export.failed else ""
    print(f"{export.images:,} images written to {export.folder}{failed}")


if __name__ == "__main__":
    sys.exit(main())
