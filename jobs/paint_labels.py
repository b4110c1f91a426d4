"""Paint annotations of a labeling tool into label files and a classes file, which training reads.

    ray job submit --working-dir . -- python jobs/paint_labels.py s3://bucket/export.zip --output s3://bucket/data \
        --images s3://bucket/in

Sources: a COCO JSON with any categories; a folder or .zip that CVAT exported as COCO or as Segmentation mask 1.1; Label
Studio's JSON export. Works without Ray too: ``python jobs/paint_labels.py SOURCE …``. Exit codes: 0 painted; 2 wrong
usage, or something is wrong in the source, the classes file or the folder of images; 3 the storage failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.data.annotations.paint import Painted, paint_labels
from pipeline.data.storage import Storage
from pipeline.errors import PipelineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Paint the annotations, print a summary and return the exit code."""
    options = _parse(arguments)
    try:
        painted = paint_labels(
            options.source,
            options.output,
            images=options.images,
            classes=options.classes,
            uncovered=options.uncovered,
            storage=Storage(),
        )
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(_summary(painted)))
    return 0


def _summary(painted: Painted) -> list[str]:
    """Return the lines of the summary: images, share of each class, everything left out, and the next command."""
    total = sum(painted.pixels.values()) + painted.void
    lines = [f"{painted.images:,} images painted into {painted.output}/labels"]
    lines += [f"class {name}: {count / total:.3%} of all pixels" for name, count in painted.pixels.items()]
    if painted.void:
        lines.append(f"void: {painted.void / total:.3%} of all pixels")
    lines += [f"{count:,} images left out: {reason}" for reason, count in painted.left_out.items()]
    if painted.missing:
        lines.append(f"first missing images: {', '.join(painted.missing)}")
    lines += [f"{count:,} objects skipped: {reason}" for reason, count in painted.skipped.items()]
    if painted.pairs is not None:
        lines.append(f"pairs of images and labels: {painted.pairs}")
    elif painted.unlocated:
        lines.append(
            f"no pairs.csv, because image URIs are unknown: give --images, or put them in {painted.output}/images"
        )
    return [*lines, f"next: jobs/train.py custom --data {painted.output} --output URI"]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(description="Paint annotations of a labeling tool into label files for training.")
    parser.add_argument("source", help="URI of a COCO JSON, a Label Studio JSON export, or a folder or .zip of CVAT")
    parser.add_argument("--output", required=True, help="URI of a prefix for labels, classes file and list of pairs")
    parser.add_argument("--images", help="URI of the folder of images; images that are not in it are left out")
    parser.add_argument("--classes", help="URI of a classes file whose values are written (default: one is made)")
    parser.add_argument(
        "--uncovered",
        choices=("background", "ignore"),
        default="background",
        help="class of pixels that no object covers (default: background)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
