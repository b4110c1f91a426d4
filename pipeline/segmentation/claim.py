"""A run makes an output its own: `run.json` first, so that whoever finds it can tell whose all the rest is."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from model.metadata import describe
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, RunConflict, StorageError, StorageUnavailable
from pipeline.results.encoding import parquet_bytes
from pipeline.results.schemas import TABLE_FORMAT
from pipeline.results.tables import RUN_FILE
from pipeline.segmentation.config import setting_differences
from pipeline.segmentation.plan import Plan
from pipeline.segmentation.shards import FrozenFile, manifest_difference

__all__ = ["claim", "refuse_other_run"]


def claim(plan: Plan, storage: Storage) -> None:
    """Makes the output this run's own, or finds that it is already.

    Raises:
        ConfigError: if nothing can be written there.
        RunConflict: if it belongs to another run; the message says what differs.
    """
    output = plan.config.output
    try:
        storage.check_writable(output)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(f"the output {output} cannot be written: {error}") from error
    run_uri = join(output, RUN_FILE)
    # The claim comes before all other files, so whoever finds it can tell whose they are.
    if not storage.write_once(run_uri, _run_json(plan)):
        refuse_other_run(plan, storage, json.loads(storage.read(run_uri)))
    files = plan.frozen_files()
    there = {info.uri for folder in {_folder(file) for file in files} for info in storage.list(join(output, folder))}
    for file in files:
        # Another version of pyarrow may encode the same rows differently: what counts is that some complete file of
        # these rows is there, and its name is this run's alone.
        if (uri := join(output, file.path)) not in there:
            storage.write_once(uri, parquet_bytes(file.rows()))


def _folder(file: FrozenFile) -> str:
    return file.path.partition("/")[0]


def _run_json(plan: Plan) -> bytes:
    config = plan.config
    labels = {key: value for key, value in describe(plan.spec).items() if key.startswith("label_")}
    description = {
        "format": TABLE_FORMAT,
        "run_id": plan.run_id,
        "identity": plan.identity,
        "ingredients": plan.ingredients,
        "settings": config.model_dump(),
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
    """Compares a run with the `run.json` that lies in its output.

    Raises:
        RunConflict: if that is another run's; the message says what differs.
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
        differences.append("other images are new, changed or gone since then")
    if theirs.get("manifest") != plan.ingredients["manifest"]:
        differences.append(manifest_difference(storage, plan.config.output, plan.manifest))
    raise RunConflict(
        f"{plan.config.output} holds run {other.get('run_id')}, this is run {plan.run_id}: {'; '.join(differences)}. "
        "Choose another --output, or repeat the first command"
    )
