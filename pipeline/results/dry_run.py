"""Dry runs of the jobs that write beside a committed run: the same checks, and the files that would be written."""

from __future__ import annotations

from pipeline.data.planned_files import PlannedFiles, check_target
from pipeline.data.storage import Storage, join
from pipeline.results.comparison.compare import check_runs, default_output
from pipeline.results.scoring.counts import has_confidence_maps
from pipeline.results.scoring.score import stored_scores
from pipeline.results.tables import Run

__all__ = ["plan_comparison", "plan_report", "plan_scores"]


def plan_report(output: str, images: int, storage: Storage | None = None) -> PlannedFiles:
    """Return the files that `write_report` would write.

    Args:
        output: URI of a committed run.
        images: Largest number of images on the contact sheet.
        storage: Storage of the run; None: default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        StorageError: If nothing can be written there.
    """
    run = Run(output, storage)
    segmented = run.success["images"] - run.success["errors"]
    scores = stored_scores(run)
    files = {"index.html": f"page about {run.success['images']:,} images and {len(run.classes)} classes"}
    if run.success["mean_iou"] is not None:
        files |= {"iou.png": "plot of the IoU of each class", "confusion.png": "plot of the confusion matrix"}
    if segmented:
        files["distribution.png"] = "plot of the scores of the images"
    if scores is not None and any(each.pixels for each in scores.curve):
        files["reliability.png"] = "plot of accuracy by confidence"
    if segmented:
        files["contact_sheet.png"] = f"{min(images, segmented):,} images with their masks"
    return _checked(run, join(run.output, "report"), files)


def plan_scores(output: str, storage: Storage | None = None) -> PlannedFiles:
    """Return the files that `score_run` would write; no mask and no label is read.

    Args:
        output: URI of a committed run.
        storage: Storage of the run; None: default retries.

    Raises:
        IncompleteRun: If no run is committed at `output`.
        StorageError: If nothing can be written there.
    """
    run = Run(output, storage)
    labels = sum(label_uri is not None for _, label_uri in run.inputs())
    parts = sum(entry["path"].startswith("predictions/") for entry in run.success["files"])
    calibration = "with calibration" if has_confidence_maps(run) else "without calibration: no confidence maps"
    files = {
        "images/part-*.parquet": f"{parts:,} files, at most {labels:,} rows: one per labeled image",
        "image_classes/part-*.parquet": f"{parts:,} files, at most {labels * len(run.classes):,} rows",
        "classes.parquet": f"scores of {len(run.classes)} classes",
        "reliability.parquet": f"bins of confidence, {calibration}",
        "run.parquet": "scores of the whole run",
    }
    return _checked(run, join(run.output, "scores"), files)


def plan_comparison(
    a: str, b: str, output: str | None = None, storage: Storage | None = None, *, overlap: bool = False
) -> PlannedFiles:
    """Return the files that a comparison of two runs would write; no mask is read.

    Args:
        a: URI of run A.
        b: URI of run B.
        output: URI of the folder; None: the default folder below B.
        storage: Storage of the runs; None: default retries.
        overlap: Whether to compare the images that both runs have, if the images of the runs differ.

    Raises:
        IncompleteRun: If one of the runs is not committed.
        ConfigError: If the runs cannot be compared.
        StorageError: If nothing can be written to the folder.
    """
    first, second, inventory = check_runs(a, b, storage or Storage(), overlap=overlap)
    classes = len(first.classes)
    files = {
        "comparison.parquet": f"{classes + 1} rows: one per class, and their mean",
        "agreement.parquet": f"{classes * classes} rows: one per pair of classes",
        "changed_images.parquet": f"at most {inventory.common:,} rows: one per image that both runs segmented",
        "only_one.parquet": f"at most {inventory.common:,} rows: one per image that only one run segmented",
        "index.html": f"page about {inventory.common:,} images",
    }
    return _checked(second, output or default_output(first, second), files)


def _checked(run: Run, folder: str, files: dict[str, str]) -> PlannedFiles:
    """Return the planned files after a check of their folder."""
    check_target(run.storage, folder)
    return PlannedFiles(folder, files)
