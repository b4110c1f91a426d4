"""Write the masks of a committed run in the format of another tool.

    ray job submit --working-dir . -- python jobs/export.py s3://bucket/out/x --to coco --output s3://bucket/export/x

Formats: index-png and color-png (folders), coco (one JSON of run lengths), geojson (polygons), label-studio and cvat
(the 50 most uncertain images, for correction). Works without Ray too: ``python jobs/export.py RUN …``. Exit codes: 0
written; 2 wrong usage; 3 nothing is committed there, or the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.errors import PipelineError
from pipeline.results.exports.export import FORMATS, Request, export_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Export the masks of a run, print the number of images and the folder, and return the exit code."""
    options = _parse(arguments)
    classes = None if options.classes is None else options.classes.split(",")
    request = Request(
        options.to, options.output, options.images, options.order, classes, options.tolerance, options.label_values
    )
    try:
        export = export_run(options.run, request)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    failed = f"; {export.failed:,} of the run failed and have no mask" if export.failed else ""
    print(f"{export.images:,} images written to {export.folder}{failed}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a wrong or contradictory one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(description="Write the masks of a committed run in the format of another tool.")
    parser.add_argument("run", help="URI of the run, as given to segment_bucket.py --output")
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="format")
    parser.add_argument("--output", required=True, help="URI of a folder for the files")
    parser.add_argument("--images", type=int, help="at most so many (default: all; label-studio and cvat: 50)")
    parser.add_argument(
        "--order",
        choices=("manifest", "uncertain", "worst"),
        help="first by URI, by entropy or by mean IoU (default: manifest; label-studio, cvat: uncertain)",
    )
    parser.add_argument("--classes", help="names, with commas between (default: all)")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="geojson: pixels that outlines may move (default: 0)"
    )
    parser.add_argument(
        "--label-values",
        action="store_true",
        help="index-png: write the values of the label files that the network was trained on (default: class ids)",
    )
    options = parser.parse_args(arguments)
    if options.images is not None and options.images < 1:
        parser.error(f"--images is {options.images}, must be at least 1")
    if options.tolerance < 0 or (options.tolerance and options.to != "geojson"):
        parser.error(f"--tolerance is {options.tolerance:g}, must be 0 or more, and is for geojson only")
    if options.label_values and options.to != "index-png":
        parser.error(f"--label-values is for index-png, not for {options.to}")
    return options


if __name__ == "__main__":
    sys.exit(main())
