"""Claim of an output by a run: `run.json` is written first and names the owner of all other files."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from model.files.metadata import metadata_of
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, RunConflict, StorageError, StorageUnavailable
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.results.schema.schemas import TABLE_FORMAT
from pipeline.results.tables import RUN_FILE
from pipeline.segmentation.config import setting_differences
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.shards import FrozenFile, manifest_difference

__all__ = ["claim", "refuse_other_run"]


def claim(plan: Plan, storage: Storage) -> None:
    """Claim the output for this run, or confirm an earlier claim; then write the frozen files that are missing.

    Args:
        plan: Plan of the run.
        storage: Storage of the output.

    Raises:
        ConfigError: If nothing can be written to the output.
        RunConflict: If the output belongs to another run; the message lists the differences.
        StorageUnavailable: If storage does not answer.
    """
    output = plan.config.output
    # An outage passes through unchanged, because it is no fault of the configuration.
    try:
        storage.check_writable(output)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(f"the output {output} cannot be written: {error}") from error
    run_uri = join(output, RUN_FILE)
    # The claim is written before all other files, so that their owner is always known. It holds the time of writing, so
    # an earlier claim of this same run has other bytes: only the identity is compared.
    if not storage.write_once(run_uri, _run_json(plan)):
        refuse_other_run(plan, storage, json.loads(storage.read(run_uri)))
    files = plan.frozen_files()
    there = {info.uri for folder in {_folder(file) for file in files} for info in storage.list(join(output, folder))}
    for file in files:
        # Another version of pyarrow may encode the same rows differently. A complete file of these rows is enough, and
        # only this run uses the name in this output.
        if (uri := join(output, file.path)) not in there:
            storage.write_once(uri, parquet_bytes(file.rows()))


def _folder(file: FrozenFile) -> str:
    return file.path.partition("/")[0]


def _run_json(plan: Plan) -> bytes:
    """Return the content of `run.json`: identity, settings, inputs and provenance of the run."""
    config = plan.config
    labels = {key: value for key, value in metadata_of(plan.spec).items() if key.startswith("label_")}
    description = {
        "format": TABLE_FORMAT,
        "run_id": plan.run_id,
        "identity": plan.identity,
        "ingredients": plan.ingredients,
        "settings": {**config.model_dump(), **config.device_settings()},
        "checkpoint": {"uri": config.checkpoint, "sha256": plan.ingredients["checkpoint"]},
        "network": {"classes": plan.spec.classes, **labels, "provenance": dict(plan.spec.provenance)},
        "manifest": {"rows": plan.manifest.num_rows, "digest": plan.ingredients["manifest"]},
        "shards": {"count": plan.shards, "images_per_shard": config.shard_images},
        "since": plan.since,
        "provenance": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    return json.dumps(description, indent=1).encode()


def refuse_other_run(plan: Plan, storage: Storage, other: Mapping[str, Any]) -> None:
    """Check that the `run.json` in an output belongs to this run.

    Args:
        plan: Plan of this run.
        storage: Storage of the output.
        other: Content of the `run.json`.

    Raises:
        RunConflict: If it belongs to another run; the message lists the differences.
    """
    if other.get("identity") == plan.identity:
        return
    theirs = other.get("ingredients", {})
    differences = setting_differences(theirs.get("settings", {}), plan.ingredients["settings"])
    if theirs.get("checkpoint") != plan.ingredients["checkpoint"]:
        differences.append(f"the checkpoint was {other.get('checkpoint', {}).get('uri')} with other bytes")
    if theirs.get("since") != plan.ingredients.get("since"):
        before = (other.get("since") or {}).get("output")
        differences.append(f"since was {before!r}, now {plan.config.since!r}")
    if theirs.get("changes") != plan.ingredients.get("changes"):
        differences.append("other images are new, changed or gone since then, or relabeled or retried")
    if theirs.get("manifest") != plan.ingredients["manifest"]:
        differences.append(manifest_difference(storage, plan.config.output, plan.manifest))
    raise RunConflict(
        f"{plan.config.output} holds run {other.get('run_id')}, this is run {plan.run_id}: {'; '.join(differences)}. "
        "Choose another --output, or repeat the first command"
    )
