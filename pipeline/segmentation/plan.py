"""What a run is: its identity, its frozen manifest, its shards; and the claim on its output."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import torch

from model.checkpoint import from_bytes
from model.errors import CheckpointError
from model.network import NetworkSpec
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import decode_label
from pipeline.data.manifest import build_manifest
from pipeline.data.manifest_table import Manifest
from pipeline.data.storage import Storage, join
from pipeline.errors import (
    ConfigError,
    DecodeError,
    ObjectMissing,
    RunConflict,
    StorageError,
    StorageUnavailable,
    UnknownClasses,
)
from pipeline.results.encoding import parquet_bytes
from pipeline.results.schemas import TABLE_FORMAT
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.shards import manifest_difference, manifest_part, part_rows

__all__ = ["Plan", "claim", "make_plan"]

RUN_FILE = "run.json"
_LOOKED_AT = 4


@dataclass(frozen=True)
class Plan:
    """One run. Two submissions with equal identities are the same run and leave the same files.

    Attributes:
        config: as asked for.
        spec: of the network.
        manifest: one row per input, sorted by URI.
        ingredients: what the identity is the digest of.
    """

    config: SegmentConfig
    spec: NetworkSpec
    manifest: Manifest
    ingredients: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """SHA-256 of the ingredients."""
        return hashlib.sha256(json.dumps(self.ingredients, sort_keys=True).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """The identity's first 16 digits."""
        return self.identity[:16]

    @property
    def shards(self) -> int:
        """How many parts the run has."""
        return -(-self.manifest.num_rows // self.config.shard_images)

    @property
    def manifest_parts(self) -> int:
        """How many files the frozen manifest has; one of no rows has one too, so that every run has its schema."""
        return max(1, -(-self.manifest.num_rows // part_rows(self.config.shard_images)))

    def manifest_part(self, part: int) -> pa.Table:
        """The rows of one of those files."""
        rows = part_rows(self.config.shard_images)
        return self.manifest.slice(part * rows, rows)

    def shard_slice(self, shard: int) -> pa.Table:
        """The manifest rows of a shard."""
        return self.manifest.slice(shard * self.config.shard_images, self.config.shard_images)


def make_plan(config: SegmentConfig, storage: Storage) -> Plan:
    """Reads the checkpoint, lists the inputs and refuses what cannot work; writes nothing.

    Raises:
        ConfigError: naming the value and the remedy.
        StorageUnavailable: if storage does not answer.
    """
    try:
        checkpoint = storage.read(config.checkpoint)
        spec = from_bytes(checkpoint).spec
        manifest = build_manifest(storage, config.images, config.labels, config.limit, config.output)
    except ObjectMissing as error:
        raise ConfigError(f"{error}: give the URI of an existing object") from error
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(str(error)) from error
    except CheckpointError as error:
        raise ConfigError(f"{config.checkpoint} is not a usable checkpoint: {error}") from error
    _check_settings(config, spec)
    _check_labels(config, spec, manifest, storage)
    ingredients = {
        "checkpoint": hashlib.sha256(checkpoint).hexdigest(),
        "settings": config.identity_settings(),
        "manifest": manifest.digest(),
        "format": TABLE_FORMAT,
    }
    return Plan(config, spec, manifest, ingredients)


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
        _refuse_other_run(plan, storage, json.loads(storage.read(run_uri)))
    there = {info.uri for info in storage.list(join(output, "manifest"))}
    for part in range(plan.manifest_parts):
        # Another version of pyarrow may encode the same rows differently: what counts is that some complete file of
        # these rows is there, and its name is this run's alone.
        if (uri := manifest_part(output, part)) not in there:
            storage.write_once(uri, parquet_bytes(plan.manifest_part(part)))


def _check_settings(config: SegmentConfig, spec: NetworkSpec) -> None:
    if config.geometry == "reference" and spec.reference_window is None:
        raise ConfigError("the checkpoint names no reference_window: use --geometry image")
    if config.label_space is None:
        return
    if config.labels is None and not config.images.endswith((".parquet", ".csv", ".jsonl")):
        raise ConfigError(f"--label-space {config.label_space} has no effect without labels: give --labels or drop it")
    space = label_space(config.label_space)
    if len(space.classes) != len(spec.classes):
        raise ConfigError(
            f"label space {space.name} has {len(space.classes)} classes, the checkpoint {len(spec.classes)}: "
            "choose the label space that the network was trained with"
        )


def _check_labels(config: SegmentConfig, spec: NetworkSpec, manifest: Manifest, storage: Storage) -> None:
    """Looks into the first labels: if none of them speaks of the network's classes, the others will not either."""
    space = None if config.label_space is None else label_space(config.label_space)
    labelled = (uri for table in manifest.tables() for uri in table["label_uri"].to_pylist() if uri is not None)
    refused = []
    for uri in itertools.islice(labelled, _LOOKED_AT):
        try:
            data = storage.read(uri)
            decode_label(data, len(spec.classes), spec.ignore_label, space, max_pixels=config.max_pixels)
            return
        except UnknownClasses as error:
            refused.append(f"{uri}: {error}")
        except (DecodeError, ObjectMissing):
            # One bad file is an error row later, and says nothing about the others.
            return
    if refused:
        raise ConfigError(f"the labels contradict the checkpoint's {len(spec.classes)} classes: {refused[0]}")


def _run_json(plan: Plan) -> bytes:
    config = plan.config
    description = {
        "format": TABLE_FORMAT,
        "run_id": plan.run_id,
        "identity": plan.identity,
        "ingredients": plan.ingredients,
        "settings": config.model_dump(),
        "checkpoint": {"uri": config.checkpoint, "sha256": plan.ingredients["checkpoint"]},
        "network": {"classes": plan.spec.classes, "provenance": dict(plan.spec.provenance)},
        "manifest": {"rows": plan.manifest.num_rows, "digest": plan.ingredients["manifest"]},
        "shards": {"count": plan.shards, "images_per_shard": config.shard_images},
        "provenance": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    return json.dumps(description, indent=1).encode()


def _refuse_other_run(plan: Plan, storage: Storage, other: Mapping[str, Any]) -> None:
    if other.get("identity") == plan.identity:
        return
    theirs = other.get("ingredients", {})
    differences = [
        f"{name} was {theirs.get('settings', {}).get(name)!r}, now {value!r}"
        for name, value in plan.ingredients["settings"].items()
        if theirs.get("settings", {}).get(name) != value
    ]
    if theirs.get("checkpoint") != plan.ingredients["checkpoint"]:
        differences.append(f"the checkpoint was {other.get('checkpoint', {}).get('uri')} with other bytes")
    if theirs.get("manifest") != plan.ingredients["manifest"]:
        differences.append(manifest_difference(storage, plan.config.output, plan.manifest))
    raise RunConflict(
        f"{plan.config.output} holds run {other.get('run_id')}, this is run {plan.run_id}: {'; '.join(differences)}. "
        "Choose another --output, or repeat the first command"
    )
