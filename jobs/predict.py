r"""Segment a few images with a network, without Ray: a mask and an overlay of each, as PNG.

    python jobs/predict.py photo.jpg s3://bucket/in/0001.jpg --checkpoint network.safetensors --output out

The quickest look at a network. For a whole bucket, with tables and scores, use jobs/segment_bucket.py. Exit codes:
0 done; 2 wrong usage, an unusable network or two images of one name; 3 an image cannot be read, or the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import model_validator
from tyro.conf import Positional, arg

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse
from pipeline.options import option


class PredictOptions(WriterOptions):
    """Options of `jobs/predict.py`."""

    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)")]
    """Paths or URIs of the images."""
    checkpoint: Annotated[str, option("URI")]
    """Path or URI of a network.safetensors."""
    output: Annotated[str, option("URI")]
    """Path or URI of a folder for NAME.png and NAME_overlay.png."""

    @model_validator(mode="after")
    def _has_images(self) -> PredictOptions:
        if not self.images:
            raise ValueError("no image is given: name one or more, see --help")
        return self


@job
def main(arguments: list[str]) -> None:
    """Predict every image, and print the largest classes of each."""
    options = parse(PredictOptions, arguments, __doc__)
    from pipeline.segmentation.few_images import plan_images, predict_images

    if options.dry_run:
        print(plan_images(options.images, options.checkpoint, options.output).text())
        return
    for image in predict_images(options.images, options.checkpoint, options.output):
        print(image.text())
    print(f"masks and overlays in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
