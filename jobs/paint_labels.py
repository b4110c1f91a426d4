r"""Paint annotations of a labeling tool into label files and a classes file, which training reads.

    ray job submit --working-dir . -- python jobs/paint_labels.py s3://bucket/export.zip --output s3://bucket/data \
        --images s3://bucket/in

Sources: a COCO JSON with any categories; a folder or .zip that CVAT exported as COCO or as Segmentation mask 1.1; Label
Studio's JSON export. Works without Ray too: `python jobs/paint_labels.py SOURCE …`. Exit codes: 0 painted; 2 wrong
usage, or something is wrong in the source, the classes file or the folder of images; 3 the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse
from pipeline.options import option


class PaintOptions(WriterOptions):
    """Options of `jobs/paint_labels.py`."""

    source: Positional[str]
    """URI of a COCO JSON, a Label Studio JSON export, or a folder or .zip of CVAT."""
    output: Annotated[str, option("URI")]
    """URI of a prefix for labels, classes file and list of pairs."""
    images: Annotated[str | None, option("URI", "not looked at")] = None
    """URI of the folder of images; images that are not in it are left out."""
    classes: Annotated[str | None, option("URI", "one is made")] = None
    """URI of a classes file whose values are written."""
    uncovered: Literal["background", "ignore"] = "background"
    """Class of pixels that no object covers."""


@job
def main(arguments: list[str]) -> None:
    """Paint the annotations, and print a summary."""
    options = parse(PaintOptions, arguments, __doc__)
    from pipeline.data.annotations.paint import plan_painting
    from pipeline.data.storage import Storage

    plan = plan_painting(
        options.source,
        options.output,
        images=options.images,
        classes=options.classes,
        uncovered=options.uncovered,
        storage=Storage(),
    )
    print(plan.files().text() if options.dry_run else plan.paint().text())


if __name__ == "__main__":
    sys.exit(main())
